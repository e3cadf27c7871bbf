//! Random nonsense, which replays from its seed.

use super::*;

/// Seeds of an ordinary test run.
// Each seed starts processes, which takes long under Wine.
const SEEDS: u64 = if cfg!(windows) { 12 } else { 150 };

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        // Steele, Lea and Flood, "Fast Splittable Pseudorandom Number Generators", 2014.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    fn word(&mut self) -> u64 {
        match self.below(6) {
            0 => 0,
            1 => u64::MAX,
            2 => self.below(8) * 8,
            3 => self.below(RING as u64 * 2),
            4 => 1 << self.below(64),
            _ => self.next(),
        }
    }
}

/// One action of a faulty worker.
fn nonsense(mad: &mut Played, random: &mut Random) {
    match random.below(8) {
        // Words of the protocol.
        0 | 1 => {
            let at = random.below(DOWN_DATA_AT as u64 / 8) as usize * 8;
            mad.write(at, random.word());
        }
        // Frames of its own making, in both directions.
        2 | 3 => {
            let kinds =
                [kind::HELLO, kind::DONE, kind::FAILED, kind::UNFIT, kind::TAKEN, kind::MISSED, SKIP, 1, 3, 0x111];
            let kind = kinds[random.below(kinds.len() as u64) as usize];
            let head = naming(random.below(3) as u16, Head::new(kind, random.word() as u32, random.below(6)));
            let at = if random.below(3) == 0 { DOWN_DATA_AT } else { UP_DATA_AT } + random.below(40) as usize * 8;
            mad.write(at, head);
            mad.write(at + 4, random.word() as u32);
            if random.below(2) == 0 {
                mad.write(UP_AT, random.below(60) * 8);
            }
        }
        // Garbage.
        4 => {
            let at = random.below(mad.segment.0.len() as u64 - 4096) as usize;
            (0..512).for_each(|i| mad.write(at + 8 * i, random.next()));
        }
        // Well-formed frames without a request.
        5 => {
            let kind = [kind::DONE, kind::FAILED, kind::TAKEN, kind::MISSED][random.below(4) as usize];
            let head = Head::new(kind, random.below(3) as u32, random.below(8));
            let content = vec![9; random.below(40_000) as usize];
            let packet = mad.packer.pack(&content, Vec::new()).unwrap();
            mad.say(head, packet);
        }
        // Notes, with a handle and without.
        6 => {
            let file = maniple_sys::process::nothing().unwrap();
            let tag = [tag::BELL, tag::BLOCK, tag::HANDLES, 77 << 32][random.below(4) as usize] | random.below(3);
            let handles = [file.as_handle()];
            let _ = mad.wire.send(tag, &handles[..random.below(2) as usize]);
        }
        // Only what a healthy worker does, as far as its link still allows it.
        _ => {
            if let Ok(Some(said)) = mad.reader.take(Some(kind::TASK), &mad.wire)
                && let (kind::TASK, Ok(content)) = (said.kind, said.content)
            {
                mad.answer(said.number, &answer_to(content.bytes()));
            }
        }
    }
}

fn play(seed: u64) -> bool {
    const TASKS: u8 = 12;
    let mut random = Random(seed);
    let (hub, mut mad, mut healthy) = pool();
    healthy.say(Head::new(kind::HELLO, 0, 0), Packet::default());
    if random.below(4) > 0 {
        mad.say(Head::new(kind::HELLO, 0, 0), Packet::default());
        hub.open_jobs();
    }
    let ticket = submit(&hub, TASKS);
    // The tasks that the healthy worker has answered.
    let mut done = Vec::new();
    let mut work = |healthy: &mut Played| {
        let taken = healthy.take();
        if let Some((number, content)) = &taken {
            healthy.answer(*number, &answer_to(content));
            done.push(usize::from(content[0]));
        }
        taken.is_some()
    };
    let mut ended = false;
    for _ in 0..random.below(30) {
        if !ended {
            nonsense(&mut mad, &mut random);
        }
        if random.below(3) == 0 {
            hub.open_jobs();
            hub.keep(Duration::ZERO);
            ended = ended || bury(&hub, &mut mad, false);
        }
        if random.below(3) == 0 {
            work(&mut healthy);
        }
    }
    let by_hub = ended || !hub.describe().contains(" 0 damaged");
    if !ended {
        bury(&hub, &mut mad, true);
    }
    wait_until("the job's end", || {
        while work(&mut healthy) {}
        ticket.is_ready()
    });
    let (settled, _) = ticket.take(usize::MAX);
    assert_eq!(settled.len(), usize::from(TASKS));
    for (at, content) in contents(TASKS).enumerate().filter(|(at, _)| done.contains(at)) {
        match &settled[at].outcome {
            Outcome::Done(value) => assert_eq!(value.bytes(), answer_to(&content), "task {at}"),
            other => panic!("task {at}, which the healthy worker has answered: {other:?}"),
        }
    }
    by_hub
}

#[test]
fn random_nonsense_neither_crashes_nor_stops_the_hub() {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let only = number("MANIPLE_SEED");
    let seeds = only.map_or(0..number("MANIPLE_SEEDS").unwrap_or(SEEDS), |seed| seed..seed + 1);
    let count = seeds.end - seeds.start;
    let mut ended = 0;
    for seed in seeds {
        let _watchdog = watchdog();
        match std::panic::catch_unwind(|| play(seed)) {
            Ok(by_hub) => ended += u64::from(by_hub),
            Err(_) => panic!("seed {seed} fails: MANIPLE_SEED={seed}"),
        }
    }
    println!("{count} seeds, {ended} workers ended by the hub");
    assert!(count < SEEDS || ended > count / 4, "{ended} of {count}: most nonsense goes unnoticed");
}
