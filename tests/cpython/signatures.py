"""Whether every call that fits one signature fits another and means the same."""

from __future__ import annotations

Parameters = list[list[str]]

POSITIONAL = ("POSITIONAL_ONLY", "POSITIONAL_OR_KEYWORD")
BY_KEYWORD = ("POSITIONAL_OR_KEYWORD", "KEYWORD_ONLY")


def objections(theirs: Parameters, ours: Parameters) -> list[str]:
    """What a call that fits `theirs` may meet in `ours`; empty if nothing. Ours may have more that need not be given."""
    found = []
    rest = {kind for _name, kind, _default in ours if kind.startswith("VAR_")}
    for kind, stars in (("VAR_POSITIONAL", "*"), ("VAR_KEYWORD", "**")):
        found += [f"takes no {stars}{name}" for name, each, _default in theirs if each == kind and kind not in rest]
    found += by_position(theirs, ours)
    named = {name: (kind, default) for name, kind, default in ours}
    for name, kind, default in theirs:
        if kind not in BY_KEYWORD:
            continue
        if name not in named or named[name][0] not in BY_KEYWORD:
            found.append(f"has no parameter {name} to be given by name")
        elif default and named[name][1] != default:
            found.append(f"{name} is {named[name][1] or 'required'} where it was {default} if not given")
    known = {name for name, _kind, _default in theirs}
    filled = [name for name, kind, _default in ours if kind in POSITIONAL][
        : sum(each[1] in POSITIONAL for each in theirs)
    ]
    for name, kind, default in ours:
        if name not in known and name not in filled and not default and not kind.startswith("VAR_"):
            found.append(f"requires {name}")
    return list(dict.fromkeys(found))


def by_position(theirs: Parameters, ours: Parameters) -> list[str]:
    """What is given by position must arrive in the parameter of the same name; positional-only ones may be renamed."""
    there = [each for each in theirs if each[1] in POSITIONAL]
    here = [each for each in ours if each[1] in POSITIONAL]
    found = []
    for place, (name, kind, default) in enumerate(there):
        if place >= len(here):
            found.append(f"takes {name} only by name")
            continue
        own, _own_kind, own_default = here[place]
        if own != name and kind != "POSITIONAL_ONLY":
            found.append(f"has {own} in the place of {name}")
        elif default and own_default != default:
            found.append(f"{own} is {own_default or 'required'} where it was {default} if not given")
    if len(here) > len(there) and any(kind == "VAR_POSITIONAL" for _name, kind, _default in theirs):
        found.append(f"has {here[len(there)][0]} where more arguments were taken")
    return found


def shown(parameters: Parameters | None) -> str:
    if parameters is None:
        return "(no signature)"
    stars = {"VAR_POSITIONAL": "*", "VAR_KEYWORD": "**", "KEYWORD_ONLY": "(by name) ", "POSITIONAL_ONLY": "(by place) "}
    return f"({', '.join(stars.get(kind, '') + name + (f'={default}' if default else '') for name, kind, default in parameters)})"
