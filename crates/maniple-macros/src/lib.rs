//! The attribute `#[maniple::task]`, which `maniple` re-exports and documents.

#![deny(missing_docs)]

use proc_macro2::{Span, TokenStream};
use quote::{format_ident, quote};
use syn::parse::{Parse, ParseStream};
use syn::{Error, FnArg, Ident, ItemFn, LitStr, Path, ReturnType, Token, Type, parse_quote};

/// Registers a function by name, also for other programs. The function itself does not change.
///
/// ```text
/// #[maniple::task]
/// fn thumbnail(photo: Vec<u8>, width: u32) -> Result<Vec<u8>, String> {
///     Ok(photo)
/// }
///
/// #[maniple::task(name = "count")]
/// fn count_words(text: String) -> usize {
///     text.split_whitespace().count()
/// }
/// ```
///
/// The name of the first is its path, `photos::thumbnail` if it is in the crate `photos`; the name of the second is
/// `count`. The module `maniple::task` documents how to call them, with examples that run. The arguments and the result
/// of a task must be values that can be sent. A task is not generic, not async and not a method. A crate that has
/// `maniple` under another name, or through another crate, passes the path: `#[maniple::task(crate = other::maniple)]`.
#[proc_macro_attribute]
pub fn task(options: proc_macro::TokenStream, item: proc_macro::TokenStream) -> proc_macro::TokenStream {
    let mut whole = TokenStream::from(item.clone());
    // The function stays as it is, so that a mistake in the attribute is the only one that is reported.
    whole.extend(
        syn::parse::<Options>(options)
            .and_then(|options| register(&options, &syn::parse(item)?))
            .unwrap_or_else(Error::into_compile_error),
    );
    whole.into()
}

/// The content of the attribute.
struct Options {
    name: Option<LitStr>,
    /// Where `maniple` is, for a crate that has it under another name.
    home: Path,
}

impl Parse for Options {
    fn parse(input: ParseStream<'_>) -> syn::Result<Options> {
        let mut options = Options { name: None, home: parse_quote!(::maniple) };
        while !input.is_empty() {
            let key: Path = input.call(Path::parse_mod_style)?;
            input.parse::<Token![=]>()?;
            if key.is_ident("name") {
                options.name = Some(input.parse()?);
            } else if key.is_ident("crate") {
                options.home = input.parse()?;
            } else {
                return Err(Error::new_spanned(key, "a task has `name = \"...\"` and `crate = path`, nothing else"));
            }
            if !input.is_empty() {
                input.parse::<Token![,]>()?;
            }
        }
        Ok(options)
    }
}

fn register(options: &Options, function: &ItemFn) -> syn::Result<TokenStream> {
    let (home, ident) = (&options.home, &function.sig.ident);
    let types = arguments(function)?;
    let values: Vec<Ident> = (0..types.len()).map(|i| format_ident!("a{i}", span = Span::mixed_site())).collect();
    let output: Type = match &function.sig.output {
        ReturnType::Default => parse_quote!(()),
        ReturnType::Type(_, output) => (**output).clone(),
    };
    // One argument travels as it is, any other number as a tuple.
    let (input, call) = match types.as_slice() {
        [only] => (quote!(#only), quote!(#ident)),
        _ => (quote!((#(#types,)*)), quote!(|(#(#values,)*): (#(#types,)*)| #ident(#(#values),*))),
    };
    let name = match &options.name {
        Some(name) if name.value().is_empty() => return Err(Error::new_spanned(name, "a task's name is not empty")),
        Some(name) => quote!(#name),
        None => {
            let plain = LitStr::new(&ident.to_string().replace("r#", ""), ident.span());
            quote!(::core::concat!(::core::module_path!(), "::", #plain))
        }
    };
    let conditions = function.attrs.iter().filter(|attribute| attribute.path().is_ident("cfg"));
    Ok(quote! {
        #(#conditions)*
        const _: () = {
            #[allow(unused_imports)]
            use #home::task::macro_support::{Ends as _, EndsNot as _, Gives as _, GivesNot as _};

            fn known() -> #home::task::macro_support::Known {
                let probe = #home::task::macro_support::Probe::<#input, #output>(#call);
                #home::task::macro_support::Known::new(&probe, (&probe).gives(), (&probe).ends())
            }

            #[#home::task::macro_support::linkme::distributed_slice(#home::task::macro_support::TASKS)]
            #[linkme(crate = #home::task::macro_support::linkme)]
            static TASK: #home::task::macro_support::Entry = #home::task::macro_support::Entry { name: #name, known };
            #home::__keep!(TASK);
        };
    })
}

/// The types of the function's arguments.
fn arguments(function: &ItemFn) -> syn::Result<Vec<&Type>> {
    let sig = &function.sig;
    if !sig.generics.params.is_empty() {
        return Err(Error::new_spanned(&sig.generics, refused("generic, and each instance would need a name")));
    }
    if let Some(keyword) = &sig.asyncness {
        return Err(Error::new_spanned(keyword, refused("async; block on the future inside the task")));
    }
    if !matches!(sig.safety, syn::Safety::Default) || sig.abi.is_some() || sig.variadic.is_some() {
        return Err(Error::new_spanned(sig, refused("unsafe or of another ABI")));
    }
    sig.inputs.iter().map(argument).collect()
}

fn argument(argument: &FnArg) -> syn::Result<&Type> {
    match argument {
        FnArg::Typed(typed) => match &*typed.ty {
            Type::Reference(ty) => {
                let why = "the argument of a task comes from another process: take a value, not a reference";
                Err(Error::new_spanned(ty, why))
            }
            Type::ImplTrait(ty) => Err(Error::new_spanned(ty, refused("generic"))),
            ty => Ok(ty),
        },
        FnArg::Receiver(own) => Err(Error::new_spanned(own, refused("a method"))),
    }
}

fn refused(what: &str) -> String {
    format!("a task is a plain function; this one is {what}")
}
