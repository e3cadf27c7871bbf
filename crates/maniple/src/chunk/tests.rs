use super::*;
use crate::error::Result;
use crate::failure::Failure;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Writes these outcomes as a worker does, and reads them again.
fn there_and_back<T: Serialize + DeserializeOwned + 'static>(values: Vec<Result<T>>) -> Vec<Result<T>> {
    let mut output = Output::plain();
    output.begin_chunk();
    for value in &values {
        match value {
            Ok(value) => output.part(value).unwrap(),
            Err(error) => output.failed::<T>(&Failure::from(error)).unwrap(),
        }
    }
    let mut input = Input::plain(output.bytes());
    let count = input.chunk::<T>().unwrap() as usize;
    assert_eq!(count, values.len());
    let read = (0..count).map(|_| input.outcome().unwrap()).collect();
    assert!(input.outcome::<T>().is_err(), "there is something left");
    read
}

fn all<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug + Clone + 'static>(values: &[T]) {
    let read = there_and_back(values.iter().cloned().map(Ok).collect());
    assert_eq!(read.into_iter().collect::<Result<Vec<T>>>().unwrap(), values);
}

#[test]
fn numbers_of_all_kinds_come_back() {
    all(&[0u8, 1, 255]);
    all(&[0u16, u16::MAX]);
    all(&[0u32, u32::MAX]);
    all(&[0u64, 1, u64::MAX]);
    all(&[0u128, u128::MAX]);
    all(&[i8::MIN, -1, i8::MAX]);
    all(&[i16::MIN, i16::MAX]);
    all(&[i32::MIN, i32::MAX]);
    all(&[i64::MIN, i64::MAX]);
    all(&[i128::MIN, i128::MAX]);
    all(&[f32::MIN, -0.0, f32::INFINITY]);
    all(&[f64::MIN, -0.0, f64::INFINITY]);
    let nan = f64::from_bits(0x7ff8_0000_0000_1234);
    assert_eq!(there_and_back(vec![Ok(nan)])[0].as_ref().unwrap().to_bits(), nan.to_bits());
    // Others, which are not as they lie in memory.
    all(&[true, false]);
    all(&['a', '\u{10ffff}']);
    all(&[(), ()]);
    all(&[(1u8, -1i64), (2, i64::MIN)]);
    all(&[[7u64; 30], [u64::MAX; 30]]);
    all(&["".to_owned(), "x".repeat(300)]);
    all(&[Some(1u32), None]);
    all(&[Ok(1u8), Err("no".to_owned())]);
    all::<u64>(&[]);
}

#[test]
fn a_failure_among_numbers_leaves_the_others() {
    let failed = || Err(Error::Call(CallError::Remote("why".into())));
    for place in 0..4 {
        let values = (0..4u64).map(|n| if n == place { failed() } else { Ok(n << 40) }).collect::<Vec<_>>();
        let read = there_and_back(values);
        for (n, value) in (0..4).zip(read) {
            match value {
                Ok(value) => assert_eq!((value, n != place), (n << 40, true)),
                Err(error) => assert!(error.to_string().ends_with("why") && n == place),
            }
        }
    }
}

#[test]
fn numbers_that_are_cut_short_or_of_another_type_are_refused() {
    let mut output = Output::plain();
    output.begin_chunk();
    (0..3u64).for_each(|n| output.part(&n).unwrap());
    let bytes = output.bytes().to_vec();
    let mut cut = Input::plain(&bytes[..bytes.len() - 1]);
    assert_eq!(cut.chunk::<u64>().unwrap(), 3);
    assert!(cut.outcome::<u64>().is_ok() && cut.outcome::<u64>().is_ok() && cut.outcome::<u64>().is_err());
    assert!(Input::plain(&bytes).chunk::<i64>().is_err());
    // A chunk whose header says that texts are numbers.
    let mut texts = Output::plain();
    texts.begin_chunk();
    texts.part(&"text".to_owned()).unwrap();
    let mut bytes = texts.bytes().to_vec();
    bytes[3] |= 0x80;
    let mut input = Input::plain(&bytes);
    assert_eq!(input.chunk::<String>().unwrap(), 1);
    assert!(input.outcome::<String>().is_err());
}
