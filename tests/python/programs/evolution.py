"""SciPy's optimiser takes anything like `map`."""

import sys

import maniple
from scipy.optimize import differential_evolution


def valley(point):
    return (point[0] - 1) ** 2 + (point[1] + 2) ** 2


if __name__ == "__main__":
    with maniple.get_context(sys.argv[1]).Pool(2) as pool:
        found = differential_evolution(
            valley, [(-5, 5), (-5, 5)], workers=pool.map, updating="deferred", seed=1, maxiter=200
        )
    print(found.success, [round(float(place), 3) for place in found.x])
