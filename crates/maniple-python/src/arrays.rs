//! Arrays of numbers, and single ones: NumPy's, which are looked into without asking NumPy's pickling.
//!
//! To pickle an array of a thousand numbers takes several times as long as to copy it, and to unpickle it as long again. What is known of
//! an array here is what the buffer protocol says: the kind of its numbers, its shape, and its bytes. An array is taken as it is if it is
//! of NumPy's own class and holds numbers of this machine's kinds; others, and all for which the program has registered a reducer, are left
//! to pickle. What is taken arrives writable, whether it was or not, and contiguous. A single number is taken if its class is NumPy's own for a number of such a kind.
//!
//! NumPy is never imported for this: it is found when a program has loaded it, or when an array arrives.
#![allow(unsafe_code)]

use crate::error::python;
use crate::lazy::Lazy;
use crate::made;
use crate::memory::PyMemory;
use crate::message::{find_reducers, has_reducer};
use crate::pickle::MIDDLING;
use maniple_engine::shm::buffers::Buffer;
use pyo3::exceptions::{PyImportError, PyRuntimeError};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyMemoryView, PyString, PyType};
use std::ffi::CStr;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicPtr, Ordering};

/// Dimensions of an array that is taken.
pub const MOST_DIMENSIONS: usize = 16;

/// The kinds of numbers: how the buffer protocol calls them, and how NumPy does. Payloads name them by their places here.
const KINDS: [(&CStr, &str); 18] = [
    (c"d", "d"),
    (c"f", "f"),
    (c"l", "l"),
    (c"i", "i"),
    (c"B", "B"),
    (c"?", "?"),
    (c"b", "b"),
    (c"h", "h"),
    (c"H", "H"),
    (c"I", "I"),
    (c"L", "L"),
    (c"q", "q"),
    (c"Q", "Q"),
    (c"e", "e"),
    (c"g", "g"),
    (c"Zf", "F"),
    (c"Zd", "D"),
    (c"Zg", "G"),
];

/// What is used of NumPy.
pub struct Numpy {
    array: Py<PyType>,
    empty: Py<PyAny>,
    scalar: Py<PyAny>,
    dtypes: Vec<Dtype>,
    /// The pickle of a call that makes an array from what follows: for an array whose bytes are in the pickle, and for an array with its bytes apart.
    pub within: Vec<u8>,
    pub apart: Vec<u8>,
    /// The pickle of the function that makes a single number.
    pub single: Vec<u8>,
}

struct Dtype {
    object: Py<PyAny>,
    /// Of single numbers.
    class: Py<PyType>,
    item: usize,
    /// Whether what is pickled as such is read as such: C has two names for some kinds, of which a pickle knows one.
    is_read_so: bool,
    /// The pickle of a call that returns it.
    pickle: Vec<u8>,
}

/// None: what goes by NumPy's name is something else.
static NUMPY: PyOnceLock<Option<Numpy>> = PyOnceLock::new();
/// Its class of arrays, once it is known, and those of single numbers.
static CLASS: AtomicPtr<ffi::PyTypeObject> = AtomicPtr::new(null_mut());
static CLASSES: [AtomicPtr<ffi::PyTypeObject>; KINDS.len()] = [const { AtomicPtr::new(null_mut()) }; KINDS.len()];

/// Whether an object is an array.
///
/// # Safety
/// A live object, and the interpreter lock is held.
pub unsafe fn is_array(value: *mut ffi::PyObject) -> bool {
    // SAFETY: a live object has a type.
    unsafe { ffi::Py_TYPE(value) == CLASS.load(Ordering::Relaxed) }
}

/// Looks into a single number. `None`: it is none, or left to pickle.
///
/// # Safety
/// As above.
pub unsafe fn single(value: *mut ffi::PyObject) -> Option<(u8, View)> {
    // SAFETY: a live object has a type.
    let class = unsafe { ffi::Py_TYPE(value) };
    if CLASS.load(Ordering::Relaxed).is_null() {
        return None;
    }
    let kind = CLASSES.iter().position(|known| known.load(Ordering::Relaxed) == class)?;
    // SAFETY: the caller holds it.
    let py = unsafe { Python::assume_attached() };
    let dtype = known(py)?.dtypes.get(kind)?;
    if has_reducer(py, class.cast()) {
        return None;
    }
    let view = View::of(value)?;
    (usize::try_from(view.0.len) == Ok(dtype.item)).then_some((kind as u8, view))
}

/// NumPy, where it is known already.
pub fn known(py: Python<'_>) -> Option<&'static Numpy> {
    NUMPY.get(py)?.as_ref()
}

/// Gets to know NumPy if the program has loaded it. False: there is nothing new.
pub fn is_found(py: Python<'_>) -> bool {
    if NUMPY.get(py).is_some() {
        return false;
    }
    let found = loaded(py).and_then(|module| module.map(|module| Numpy::of(&module)).transpose());
    // While it is being imported, parts are missing.
    let Ok(Some(numpy)) = found else { return false };
    let is_new = numpy.is_some() && NUMPY.set(py, numpy).is_ok();
    if let Some(numpy) = known(py) {
        for (class, dtype) in CLASSES.iter().zip(&numpy.dtypes).filter(|(_, dtype)| dtype.is_read_so) {
            class.store(dtype.class.as_ptr().cast(), Ordering::Relaxed);
        }
        CLASS.store(numpy.array.as_ptr().cast(), Ordering::Relaxed);
    }
    is_new
}

fn loaded(py: Python<'_>) -> PyResult<Option<Bound<'_, PyAny>>> {
    static MODULES: PyOnceLock<Py<PyDict>> = PyOnceLock::new();
    let modules = MODULES.get_or_make(py, || PyResult::Ok(py.import("sys")?.getattr("modules")?.extract()?))?;
    modules.bind(py).get_item("numpy")
}

/// Imports NumPy for arrays that have arrived.
pub fn need(py: Python<'_>) -> PyResult<()> {
    if known(py).is_none() {
        py.import("numpy")?;
        is_found(py);
        known(py)
            .ok_or_else(|| PyImportError::new_err("an array has arrived, but the module numpy here is not NumPy"))?;
    }
    Ok(())
}

impl Numpy {
    /// `None`: it is not NumPy.
    fn of(module: &Bound<'_, PyAny>) -> PyResult<Option<Numpy>> {
        let array = module.getattr("ndarray")?.cast_into::<PyType>()?;
        let dtypes = KINDS.iter().map(|(_, name)| Dtype::of(&module.getattr("dtype")?, name));
        let dtypes = dtypes.collect::<PyResult<Vec<_>>>()?;
        // SAFETY: a live type. A type that was made by a class statement may be anything.
        let is_made = |class: &Bound<'_, PyType>| unsafe {
            ffi::PyType_GetFlags(class.as_type_ptr()) & ffi::Py_TPFLAGS_HEAPTYPE != 0
        };
        if is_made(&array) || dtypes.iter().any(|dtype| is_made(dtype.class.bind(module.py()))) {
            return Ok(None);
        }
        find_reducers(module.py())?;
        let empty = module.getattr("empty")?;
        let name = |function: &Bound<'_, PyAny>| -> PyResult<(String, String)> {
            Ok((function.getattr("__module__")?.extract()?, function.getattr("__qualname__")?.extract()?))
        };
        let sample = empty.call1((1,))?;
        let within = name(&sample.call_method0("__reduce__")?.get_item(0)?)?;
        let apart = name(&sample.call_method1("__reduce_ex__", (5,))?.get_item(0)?)?;
        let scalar = sample.get_item(0)?.call_method0("__reduce__")?.get_item(0)?;
        let single = name(&scalar)?;
        Ok(Some(Numpy {
            dtypes,
            scalar: scalar.unbind(),
            single: global(&single.0, &single.1),
            empty: empty.unbind(),
            array: array.unbind(),
            within: [global(&within.0, &within.1), global("numpy", "ndarray"), b"K\0\x85C\x01b\x87R".to_vec()].concat(),
            apart: [global(&apart.0, &apart.1), b"(\x97".to_vec()].concat(),
        }))
    }

    /// The pickle of a call that returns the description of numbers of this kind.
    pub fn dtype(&self, kind: u8) -> &[u8] {
        self.dtypes.get(usize::from(kind)).map_or(&[], |dtype| &dtype.pickle)
    }

    /// Which kind's pickle this begins with.
    pub fn kind_at(&self, pickle: &[u8]) -> Option<u8> {
        let found = self.dtypes.iter().position(|dtype| pickle.starts_with(&dtype.pickle))?;
        u8::try_from(found).ok()
    }

    fn expect(&self, kind: u8, shape: &[usize], bytes: usize) -> PyResult<&Dtype> {
        let dtype = self.dtypes.get(usize::from(kind));
        let fits = |dtype: &&Dtype| shape.iter().try_fold(dtype.item, |all, n| all.checked_mul(*n)) == Some(bytes);
        dtype
            .filter(fits)
            .ok_or_else(|| PyRuntimeError::new_err("an array has arrived whose shape does not fit its bytes"))
    }

    /// An array with these bytes, which are copied. The memory of one of middling size is used again when it is gone.
    pub fn filled<'py>(
        &self,
        py: Python<'py>,
        layout: Layout,
        shape: &[usize],
        bytes: &[u8],
    ) -> PyResult<Bound<'py, PyAny>> {
        if bytes.len() >= MIDDLING {
            let mut memory = Buffer::default();
            memory.extend(bytes).map_err(python)?;
            return self.over(layout, shape, Bound::new(py, PyMemory::from(memory))?.as_any(), bytes.len());
        }
        let dtype = self.expect(layout.kind, shape, bytes.len())?.object.bind(py);
        let shape = made::shape(py, shape)?;
        let order = layout.is_fortran.then(|| pyo3::intern!(py, "F"));
        let order = order.map_or(null_mut(), |order| order.as_ptr());
        let array = made::called(self.empty.bind(py), [shape.as_ptr(), dtype.as_ptr(), order])?;
        let view = View::of(array.as_ptr()).filter(|view| view.0.len as usize == bytes.len());
        let view = view.ok_or_else(|| PyRuntimeError::new_err("a new array has no buffer"))?;
        // SAFETY: the view is of so many writable bytes of an array that has no other reference yet.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), view.0.buf.cast::<u8>(), bytes.len()) };
        Ok(array)
    }

    /// A single number of these bytes.
    pub fn number<'py>(&self, py: Python<'py>, kind: u8, bytes: &[u8]) -> PyResult<Bound<'py, PyAny>> {
        let dtype = self.expect(kind, &[], bytes.len())?.object.bind(py);
        let bytes = made::bytes(py, bytes)?;
        made::called(self.scalar.bind(py), [dtype.as_ptr(), bytes.as_ptr(), null_mut()])
    }

    /// An array over the bytes of this buffer.
    pub fn over<'py>(
        &self,
        layout: Layout,
        shape: &[usize],
        buffer: &Bound<'py, PyAny>,
        len: usize,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = buffer.py();
        let dtype = self.expect(layout.kind, shape, len)?.object.bind(py);
        let shape = made::shape(py, shape)?;
        if layout.is_fortran {
            return self.array.bind(py).call1((shape, dtype, buffer, 0, py.None(), pyo3::intern!(py, "F")));
        }
        made::called(self.array.bind(py), [shape.as_ptr(), dtype.as_ptr(), buffer.as_ptr()])
    }
}

impl Dtype {
    fn of(class: &Bound<'_, PyAny>, letter: &str) -> PyResult<Dtype> {
        let object = class.call1((letter,))?;
        let name: String = object.getattr("str")?.extract()?;
        let string = [&[0x8c, name.len() as u8], name.as_bytes()].concat();
        Ok(Dtype {
            is_read_so: class.call1((&name,))?.is(&object),
            object: object.clone().unbind(),
            item: object.getattr("itemsize")?.extract()?,
            class: object.getattr("type")?.extract()?,
            pickle: [global("numpy", "dtype"), string, b"\x85R".to_vec()].concat(),
        })
    }
}

/// The pickle of what a module has under a name.
fn global(module: &str, name: &str) -> Vec<u8> {
    let text = |text: &str| [&[0x8c, text.len() as u8], text.as_bytes()].concat();
    [text(module), text(name), vec![0x93]].concat()
}

/// What the buffer protocol says of an object, as long as this lives. Until then it keeps its bytes where they are; an array does as long as
/// the interpreter lock is held, and without it while there is a [`pin`](Content::pin).
pub struct View(Box<ffi::Py_buffer>);

// SAFETY: bytes of an object to which the view holds a reference; it is released with the interpreter lock held.
unsafe impl Send for View {}
// SAFETY: as above.
unsafe impl Sync for View {}

impl View {
    /// `None`: it has no buffer.
    fn of(object: *mut ffi::PyObject) -> Option<View> {
        let mut view = Box::new(ffi::Py_buffer::new());
        // SAFETY: the caller has a live object, and the interpreter lock.
        if unsafe { ffi::PyObject_GetBuffer(object, &raw mut *view, ffi::PyBUF_FULL_RO) } != 0 {
            // SAFETY: as above.
            unsafe { ffi::PyErr_Clear() };
            return None;
        }
        Some(View(view))
    }

    /// Its bytes. Another thread may write to them meanwhile; then what arrives is a mixture, as with any buffer that changes while it is
    /// being sent.
    pub fn bytes(&self) -> &[u8] {
        if self.0.len <= 0 {
            return &[];
        }
        // SAFETY: an array that was taken is contiguous; the view keeps its bytes alive and in place.
        unsafe { std::slice::from_raw_parts(self.0.buf.cast::<u8>(), self.0.len as usize) }
    }
}

impl Drop for View {
    fn drop(&mut self) {
        // SAFETY: it was filled in by the interpreter.
        Python::attach(|_| unsafe { ffi::PyBuffer_Release(&raw mut *self.0) });
    }
}

/// What an array's numbers are, and how they follow one another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    pub kind: u8,
    /// The first index counts fastest, as in Fortran, and not the last.
    pub is_fortran: bool,
}

impl Layout {
    /// Both in one byte.
    pub fn code(self) -> u8 {
        self.kind | if self.is_fortran { FORTRAN } else { 0 }
    }

    pub fn of(code: u8) -> Layout {
        Layout { kind: code & !FORTRAN, is_fortran: code & FORTRAN != 0 }
    }
}

const FORTRAN: u8 = 0x80;

/// An array that was looked into.
pub struct Array {
    pub layout: Layout,
    dimensions: usize,
    shape: [usize; MOST_DIMENSIONS],
    pub content: Content,
}

/// An array's numbers, one behind the other.
pub enum Content {
    /// Where they lie.
    View(View),
    /// Of an array that has others between them.
    Copy(Vec<u8>),
}

/// What keeps other threads from moving the bytes of a buffer's owner while they are read without the interpreter lock; `None`: it does not
/// move them.
///
/// NumPy's `resize` frees an array's memory even if views of it exist, with `refcheck=False`. But it always checks for weak references:
/// if there is one, the other thread gets NumPy's `ValueError`.
pub fn pin(owner: &Bound<'_, PyAny>) -> Option<Py<PyAny>> {
    let py = owner.py();
    is_found(py);
    let array = known(py)?.array.bind(py);
    let mut owner = owner.clone();
    while owner.is_instance_of::<PyMemoryView>() {
        owner = owner.getattr(pyo3::intern!(py, "obj")).ok()?;
    }
    if !owner.is_instance(array).ok()? {
        return None;
    }
    // SAFETY: a live object; what is given is a new reference, or null with an exception set.
    let made = unsafe { Bound::from_owned_ptr_or_err(py, ffi::PyWeakref_NewRef(owner.as_ptr(), null_mut())) };
    made.ok().map(Bound::unbind)
}

impl Content {
    /// The object to keep alive while the bytes are read without the interpreter lock. The lock was held since the bytes were checked.
    pub fn pin(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        let Content::View(view) = self else { return None };
        // SAFETY: the view holds a reference to its owner.
        pin(&unsafe { Bound::from_borrowed_ptr_or_opt(py, view.0.obj) }?)
    }

    pub fn bytes(&self) -> &[u8] {
        match self {
            Content::View(view) => view.bytes(),
            Content::Copy(bytes) => bytes,
        }
    }
}

/// Copies the numbers of an array, the last index counting fastest. `None`: there is no memory for them.
///
/// # Safety
/// From `start` on there is an array with these lengths and, in bytes, strides, of numbers of `item` bytes each.
unsafe fn gathered(start: *const u8, lengths: &[usize], strides: &[isize], item: usize) -> Option<Vec<u8>> {
    let count = lengths.iter().try_fold(item, |all, len| all.checked_mul(*len))?;
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(count).ok()?;
    // What lies together at the end is copied at once.
    let mut whole = item;
    let mut inner = lengths.len();
    while inner > 0 && (lengths[inner - 1] == 1 || strides[inner - 1] == whole as isize) {
        whole *= lengths[inner - 1];
        inner -= 1;
    }
    if count > 0 {
        // SAFETY: as the caller says.
        unsafe { gather(start, &lengths[..inner], &strides[..inner], whole, &mut bytes) };
    }
    Some(bytes)
}

/// # Safety
/// As above, of pieces of `whole` bytes.
unsafe fn gather(start: *const u8, lengths: &[usize], strides: &[isize], whole: usize, bytes: &mut Vec<u8>) {
    let (Some((&len, lengths)), Some((&stride, strides))) = (lengths.split_first(), strides.split_first()) else {
        // SAFETY: a piece.
        bytes.extend_from_slice(unsafe { std::slice::from_raw_parts(start, whole) });
        return;
    };
    let place = |index: usize| start.wrapping_offset(stride * index as isize);
    if !lengths.is_empty() {
        // SAFETY: within the array.
        (0..len).for_each(|index| unsafe { gather(place(index), lengths, strides, whole, bytes) });
        return;
    }
    macro_rules! in_pieces_of {
        ($($size:literal)*) => {
            match whole {
                // SAFETY: pieces within the array, wherever they lie.
                $($size => bytes.extend((0..len).flat_map(|index| unsafe { place(index).cast::<[u8; $size]>().read() })),)*
                // SAFETY: the same.
                _ => (0..len).for_each(|index| unsafe {
                    bytes.extend_from_slice(std::slice::from_raw_parts(place(index), whole));
                }),
            }
        };
    }
    in_pieces_of!(1 2 4 8 16);
}

impl Array {
    /// Looks into an array. `None`: it is left to pickle.
    ///
    /// # Safety
    /// A live array, and the interpreter lock is held.
    pub unsafe fn of(value: *mut ffi::PyObject) -> Option<Array> {
        // SAFETY: the caller holds it.
        let py = unsafe { Python::assume_attached() };
        let numpy = known(py)?;
        if has_reducer(py, numpy.array.as_ptr()) {
            return None;
        }
        let view = View::of(value)?;
        let of = &view.0;
        let dimensions = usize::try_from(of.ndim).ok().filter(|n| *n <= MOST_DIMENSIONS)?;
        if of.format.is_null() || !of.suboffsets.is_null() {
            return None;
        }
        // SAFETY: the format is a string with a null behind it.
        let format = unsafe { CStr::from_ptr(of.format) };
        let kind = KINDS.iter().position(|(name, _)| *name == format)?;
        let dtype = numpy.dtypes.get(kind).filter(|dtype| dtype.is_read_so)?;
        if usize::try_from(of.itemsize) != Ok(dtype.item) || !is_plain(py, value, dtype.object.as_ptr()) {
            return None;
        }
        let mut shape = [0; MOST_DIMENSIONS];
        for (place, len) in shape[..dimensions].iter_mut().enumerate() {
            // SAFETY: the protocol provides `dimensions` lengths.
            *len = usize::try_from(unsafe { *of.shape.add(place) }).ok()?;
        }
        let follows = |places: &mut dyn Iterator<Item = usize>| {
            let mut step = of.itemsize;
            for place in places {
                // SAFETY: the protocol provides as many strides, if any.
                let stride = if of.strides.is_null() { step } else { unsafe { *of.strides.add(place) } };
                if shape[place] > 1 && stride != step {
                    return false;
                }
                let Some(next) = isize::try_from(shape[place]).ok().and_then(|len| step.checked_mul(len)) else {
                    return false;
                };
                step = next;
            }
            step == of.len
        };
        let is_c = follows(&mut (0..dimensions).rev());
        let is_fortran = !is_c && !of.strides.is_null() && follows(&mut (0..dimensions));
        let content = if is_c || is_fortran {
            Content::View(view)
        } else {
            // SAFETY: the protocol provides that many strides, which lead to numbers of the array.
            unsafe {
                let strides = std::slice::from_raw_parts(of.strides, dimensions);
                Content::Copy(gathered(of.buf.cast::<u8>(), &shape[..dimensions], strides, dtype.item)?)
            }
        };
        Some(Array { layout: Layout { kind: kind as u8, is_fortran }, dimensions, shape, content })
    }

    pub fn shape(&self) -> &[usize] {
        &self.shape[..self.dimensions]
    }
}

/// Whether an array's description of its numbers says no more than their kind.
fn is_plain(py: Python<'_>, array: *mut ffi::PyObject, kind: *mut ffi::PyObject) -> bool {
    static NAMES: PyOnceLock<(Py<PyString>, Py<PyString>)> = PyOnceLock::new();
    let make = || (PyString::intern(py, "dtype").unbind(), PyString::intern(py, "metadata").unbind());
    let (dtype, metadata) = NAMES.get_or_init(py, make);
    // SAFETY: live objects; attributes of NumPy's own types run no Python code. What is given is owned, or null with an exception set.
    unsafe {
        let found = Bound::from_owned_ptr_or_opt(py, ffi::PyObject_GetAttr(array, dtype.as_ptr()));
        let is_plain = found.is_some_and(|found| {
            found.as_ptr() == kind
                || Bound::from_owned_ptr_or_opt(py, ffi::PyObject_GetAttr(found.as_ptr(), metadata.as_ptr()))
                    .is_some_and(|metadata| metadata.is_none())
        });
        ffi::PyErr_Clear();
        is_plain
    }
}
