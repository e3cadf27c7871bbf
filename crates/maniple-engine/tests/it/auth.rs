//! The authentication's messages: between ends of every form, and with peers that have another key, talk nonsense, or
//! would like a weaker form.

use maniple_engine::channel::auth::{Handshake, MOST, RANDOM, Refusal, Role, State, answer, verify};
use proptest::prelude::*;

const KEY: &[u8] = b"a key";
const WELCOME: &[u8] = b"#WELCOME#";
const FAILURE: &[u8] = b"#FAILURE#";

fn unhex(text: &str) -> Vec<u8> {
    text.as_bytes().chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

fn challenge(text: &[u8]) -> Vec<u8> {
    [b"#CHALLENGE#", text].concat()
}

/// What a handshake sends, and its state after that.
fn hear(handshake: &mut Handshake, message: &[u8]) -> (Option<Vec<u8>>, State) {
    let turn = handshake.hear(message);
    (turn.say, turn.state)
}

fn refusal(state: State) -> Refusal {
    match state {
        State::Failed(why) => why,
        other => panic!("not refused: {other:?}"),
    }
}

/// Lets two ends talk; returns the state of each at the end.
fn talk(key_of_listener: &[u8], key_of_client: &[u8]) -> (State, State) {
    let (mut listener, mut to_client) = Handshake::new(key_of_listener, Role::Listener, [1; RANDOM]);
    let (mut client, first) = Handshake::new(key_of_client, Role::Client, [2; RANDOM]);
    assert_eq!(first, None);
    let mut states = (State::Open, State::Open);
    while let Some(message) = to_client.take() {
        let (said, state) = hear(&mut client, &message);
        states.1 = state;
        if let Some(said) = said {
            (to_client, states.0) = hear(&mut listener, &said);
        }
    }
    states
}

#[test]
fn two_ends_with_the_same_key_let_each_other_in() {
    assert_eq!(talk(KEY, KEY), (State::Done, State::Done));
    assert_eq!(talk(b"", b""), (State::Done, State::Done));
    assert_eq!(talk(&[7; 1000], &[7; 1000]), (State::Done, State::Done));
}

#[test]
fn both_ends_get_to_know_that_their_keys_differ() {
    let (listener, client) = talk(KEY, b"another key");
    assert_eq!(refusal(listener), Refusal::WrongKey);
    let why = refusal(client);
    assert!(matches!(why, Refusal::Rejected(_)), "{why}");
    assert_eq!(
        why.to_string(),
        "digest sent was rejected: the peer has another key; both ends need the same key (the peer sent \"#FAILURE#\")"
    );
}

/// Signatures by Python's own `hmac`.
#[test]
fn challenges_are_answered_as_python_does() {
    for (digest, signature) in
        [("md5", MD5), ("sha256", SHA256), ("sha384", SHA384), ("sha3_256", SHA3_256), ("sha3_384", SHA3_384)]
    {
        let text = format!("{{{digest}}}0123456789abcdefghijklmnopqrstuvwxyzABCD").into_bytes();
        let expected = [format!("{{{digest}}}").as_bytes(), &unhex(signature)].concat();
        assert_eq!(answer(KEY, &challenge(&text)).unwrap(), expected, "{digest}");
        verify(KEY, &text, &expected).unwrap();
        assert_eq!(verify(b"another", &text, &expected), Err(Refusal::WrongKey));
    }
    assert_eq!(answer(KEY, &challenge(b"0123456789abcdefghij")).unwrap(), unhex(MD5_ONLY));
    verify(KEY, b"0123456789abcdefghij", &unhex(MD5_ONLY)).unwrap();
}

#[test]
fn a_client_of_the_md5_form_is_let_in_and_answered_in_its_form() {
    let (mut listener, first) = Handshake::new(KEY, Role::Listener, [3; RANDOM]);
    let first = first.unwrap();
    assert!(first.starts_with(b"#CHALLENGE#{sha256}") && first.len() == 11 + 8 + RANDOM);
    // Python 3.11 signs all that follows the first word.
    let signed = &first[11..];
    let md5_of = |message: &[u8]| hmac_md5(KEY, message);
    let (said, state) = hear(&mut listener, &md5_of(signed));
    assert_eq!((said.as_deref(), state), (Some(WELCOME), State::Open));
    let (said, state) = hear(&mut listener, &challenge(b"0123456789abcdefghij"));
    assert_eq!((said, state), (Some(unhex(MD5_ONLY)), State::Open));
    assert_eq!(hear(&mut listener, WELCOME), (None, State::Done));
}

#[test]
fn the_name_of_the_digest_is_signed_with_the_rest() {
    // A third party turns our challenge into a weaker one; the client answers that.
    let (mut listener, first) = Handshake::new(KEY, Role::Listener, [4; RANDOM]);
    let first = first.unwrap();
    let weaker = challenge(&[b"{md5}", &first[11 + 8..]].concat());
    let (said, state) = hear(&mut listener, &answer(KEY, &weaker).unwrap());
    assert_eq!((said.as_deref(), refusal(state)), (Some(FAILURE), Refusal::WrongKey));
    let (mut listener, first) = Handshake::new(KEY, Role::Listener, [4; RANDOM]);
    let cut = challenge(&first.unwrap()[11 + 8..][..20]);
    let (said, state) = hear(&mut listener, &answer(KEY, &cut).unwrap());
    assert_eq!((said.as_deref(), refusal(state)), (Some(FAILURE), Refusal::WrongKey));
}

#[test]
fn what_is_no_challenge_gets_no_signature() {
    for (message, expected) in [
        (&b"hello"[..], "\"hello\" instead of a challenge"),
        (b"", "\"\" instead of a challenge"),
        (b"#WELCOME#", "#WELCOME#"),
        (b"#CHALLENGE#", "has 0 bytes"),
        (b"#CHALLENGE#{sha256}short", "has 13 bytes"),
        (b"#CHALLENGE#0123456789abcdefghijk", "which is not an MD5 digest"),
        (b"#CHALLENGE#{sha1}0123456789abcdefghijk", "name a known digest"),
        (b"#CHALLENGE#{SHA256}0123456789abcdefghijk", "name a known digest"),
        (b"#CHALLENGE#{sha256 0123456789abcdefghijk", "name a known digest"),
        (b"#CHALLENGE#{}0123456789abcdefghijk", "name a known digest"),
    ] {
        let (mut client, _) = Handshake::new(KEY, Role::Client, [5; RANDOM]);
        let (said, state) = hear(&mut client, message);
        assert_eq!(said, None);
        let text = refusal(state).to_string();
        assert!(text.contains(expected), "{text}");
    }
}

#[test]
fn what_is_no_response_is_a_failure_and_the_peer_is_told() {
    let right = |first: &[u8]| answer(KEY, first).unwrap();
    let cut = |first: &[u8]| right(first)[..39].to_vec();
    let long = |first: &[u8]| [right(first), vec![0]].concat();
    let flipped = |first: &[u8]| {
        let mut response = right(first);
        *response.last_mut().unwrap() ^= 1;
        response
    };
    let unnamed = |first: &[u8]| right(first)[8..].to_vec();
    let renamed = |first: &[u8]| [b"{sha384}", &right(first)[8..]].concat();
    let empty = |_: &[u8]| Vec::new();
    let zeros = |_: &[u8]| vec![0; 16];
    let echo = |first: &[u8]| first.to_vec();
    let too_long = |_: &[u8]| vec![b'x'; MOST + 1];
    type Way<'a> = &'a dyn Fn(&[u8]) -> Vec<u8>;
    let ways: [Way<'_>; 9] = [&cut, &long, &flipped, &unnamed, &renamed, &empty, &zeros, &echo, &too_long];
    for (n, way) in ways.iter().enumerate() {
        let (mut listener, first) = Handshake::new(KEY, Role::Listener, [6; RANDOM]);
        let (said, state) = hear(&mut listener, &way(&first.unwrap()));
        assert_eq!(said.as_deref(), Some(FAILURE), "{n}");
        refusal(state);
        // That was it: nothing can make up for it.
        assert_eq!(hear(&mut listener, WELCOME), (None, State::Failed(Refusal::OutOfTurn)));
    }
}

#[test]
fn a_welcome_is_one_word_and_comes_when_it_is_due() {
    for word in [&b"#WELCOME"[..], b"#WELCOME# ", b"#welcome#", b"", b"#FAILURE#"] {
        let (mut client, _) = Handshake::new(KEY, Role::Client, [7; RANDOM]);
        let (said, _) = hear(&mut client, &challenge(b"0123456789abcdefghij"));
        assert!(said.is_some());
        let (said, state) = hear(&mut client, word);
        assert_eq!(said, None);
        assert!(matches!(refusal(state), Refusal::Rejected(_)));
    }
    let (mut listener, _) = Handshake::new(KEY, Role::Listener, [7; RANDOM]);
    refusal(hear(&mut listener, WELCOME).1);
}

#[test]
fn a_length_out_of_bounds_ends_it() {
    let (mut listener, _) = Handshake::new(KEY, Role::Listener, [8; RANDOM]);
    let turn = listener.hear_length(1 << 31);
    assert_eq!(turn.say.as_deref(), Some(FAILURE));
    assert!(refusal(turn.state).to_string().contains("2147483648 bytes"));
}

#[test]
fn the_key_is_not_to_be_seen() {
    let (handshake, _) = Handshake::new(b"secret", Role::Client, [9; RANDOM]);
    let text = format!("{handshake:?}");
    assert!(!text.contains("secret") && !text.contains("115, 101"), "{text}");
}

proptest! {
    /// On any input, no peer without the key gets in, and nothing panics.
    #[test]
    fn noise_never_gets_in(messages in prop::collection::vec(noise(), 1..6), client: bool) {
        let role = if client { Role::Client } else { Role::Listener };
        let (mut handshake, _) = Handshake::new(KEY, role, [10; RANDOM]);
        for message in messages {
            let turn = handshake.hear(&message);
            prop_assert_ne!(turn.state, State::Done);
            prop_assert!(turn.say.is_none_or(|said| said.len() <= MOST));
        }
    }

    #[test]
    fn any_key_fits_itself_and_no_other(a in key(), b in key()) {
        prop_assert_eq!(talk(&a, &a), (State::Done, State::Done));
        // Keys shorter than a block are filled up with zeros: those mean the same.
        let trimmed = |key: &[u8]| key.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
        if a[..trimmed(&a)] != b[..trimmed(&b)] {
            prop_assert!(matches!(talk(&a, &b), (State::Failed(_), State::Failed(_))));
        }
    }
}

fn key() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 1..200)
}

/// Bytes, and what begins as it should.
fn noise() -> impl Strategy<Value = Vec<u8>> {
    let start = prop_oneof![
        Just(&b""[..]),
        Just(&b"#CHALLENGE#"[..]),
        Just(&b"#CHALLENGE#{sha256}"[..]),
        Just(&b"#CHALLENGE#{md5}"[..]),
        Just(&b"{sha256}"[..]),
        Just(&b"{md5}"[..]),
        Just(WELCOME),
    ];
    (start, prop::collection::vec(any::<u8>(), 0..300)).prop_map(|(start, rest)| [start, &rest].concat())
}

/// The response of the MD5 form to any message: that of `{md5}`, without the name in front. The message must not
/// be of a form.
fn hmac_md5(key: &[u8], message: &[u8]) -> Vec<u8> {
    use hmac::{Hmac, KeyInit, Mac};
    let mac = <Hmac<md5::Md5> as KeyInit>::new_from_slice(key).unwrap();
    mac.chain_update(message).finalize().into_bytes().to_vec()
}

const MD5: &str = "6381b6f3897185367995676aac96a9b5";
const SHA256: &str = "5047fab153d59bffcf3e6f97140d1eda7f40d22528d2200f6a8ddbbebc50d011";
const SHA384: &str = "31938dce8f922a399c116ce6bed44228e234a70d3df7cfc19feeb53b72fc5845c60a8c9dcc4ee1453ee7bf0ae3972581";
const SHA3_256: &str = "f75009f5a9d88f3cdcc3e32a99a64f9faa19c07318edb907f69c7a4a2ddf7bf1";
const SHA3_384: &str =
    "5a837660ba85bf13284797c771bb3152e18612477b2148ffbaa5bc069f5b243c04a273ba64d58b2aea9be469e9316dbd";
const MD5_ONLY: &str = "be086e2bd22d1b55d67564fb939bbdb3";
