//! What the simulator has found, each told once more as a short story.

use maniple_engine::pool::scheduler::{
    Answered, Chunk, Command, Config, Death, JobId, JobShape, Scheduler, Supply, Terms, Took, WorkerId,
};
use std::sync::Arc;

const SHAPE: JobShape =
    JobShape { func: 1, supply: Supply::Complete, chunk: Chunk::Fixed(1), items: None, window: None, terms: None };
const MILLI: u64 = 1_000_000;

fn step(sched: &mut Scheduler<()>, now: u64) -> Vec<Command> {
    let mut commands = Vec::new();
    sched.plan(now);
    sched.commands(&mut commands);
    commands
}

fn pool<const N: usize>() -> (Scheduler<()>, [WorkerId; N]) {
    let mut sched = Scheduler::new(Config::of(N));
    assert_eq!(step(&mut sched, 0), [Command::Start(N)]);
    let workers = [(); N].map(|()| sched.worker_started());
    workers.iter().for_each(|&w| sched.worker_up(w, 1));
    (sched, workers)
}

fn job(sched: &mut Scheduler<()>, func: u32, tasks: usize) -> JobId {
    let job = sched.submit(JobShape { func, ..SHAPE }).expect("the pool runs");
    for _ in 0..tasks {
        sched.add(job, 1, (), 0);
    }
    sched.filled(job, true);
    job
}

/// Makes it known that the function's tasks take 1 µs, so that workers are given several in advance.
fn teach(sched: &mut Scheduler<()>, func: u32) {
    job(sched, func, 1);
    let sent = sends(&step(sched, 2));
    sched.finished(sent[0].0, sent[0].1, Took { nanos: 1_000, began: 0 }, Answered::Completed, 3);
    step(sched, 3);
}

fn sends(commands: &[Command]) -> Vec<(WorkerId, u64)> {
    let sent = |c: &Command| if let Command::Send { worker, number } = *c { Some((worker, number)) } else { None };
    commands.iter().filter_map(sent).collect()
}

/// A job of a single task.
fn single(sched: &mut Scheduler<()>, func: u32, priority: i32) -> JobId {
    let terms = Arc::new(Terms { priority, ..Terms::default() });
    let job = sched.submit(JobShape { func, items: Some(1), terms: Some(terms), ..SHAPE }).expect("the pool runs");
    sched.add(job, 1, (), 0);
    sched.filled(job, true);
    job
}

#[test]
fn an_urgent_task_goes_before_those_that_were_given_in_advance() {
    for urgent in [-1, 0] {
        let (mut sched, [worker]) = pool();
        teach(&mut sched, 1);
        let low: Vec<JobId> = match urgent {
            // A call of the same priority gets its share.
            0 => vec![job(&mut sched, 1, 20)],
            _ => (0..6).map(|_| single(&mut sched, 1, 5)).collect(),
        };
        let given = sends(&step(&mut sched, 10)).len();
        assert!(given > 4, "its tasks were short");
        // They have become long.
        let first = if urgent == 0 { job(&mut sched, 2, 1) } else { single(&mut sched, 2, urgent) };
        step(&mut sched, 20);
        let soon = sched.next_look(MILLI).expect("it looks again");
        assert!(soon <= 6 * MILLI);
        let commands = step(&mut sched, 7 * MILLI);
        assert_eq!(commands, [Command::Revoke { worker, count: given - 1 }]);
        sched.revoked(worker, given - 1);
        // What waits now is not taken back again.
        step(&mut sched, 7 * MILLI + 1);
        assert_eq!(step(&mut sched, 14 * MILLI), []);
        let number = sched.assigned(worker).next().expect("it runs").number;
        sched.finished(worker, number, Took { nanos: 14 * MILLI, began: 0 }, Answered::Completed, 14 * MILLI);
        step(&mut sched, 14 * MILLI);
        assert_eq!(sched.assigned(worker).next().map(|task| task.job), Some(first), "{low:?}");
    }
}

#[test]
fn a_pool_is_not_given_up_while_a_worker_lives() {
    const SECOND: u64 = 1_000_000_000;
    let (mut sched, [one, two]) = pool();
    sched.worker_gone(two, Death::Unasked, 0, |()| false, |()| true);
    for round in 1..=10 {
        // After pauses, from some failures on.
        step(&mut sched, round * 10 * SECOND);
        let _ = step(&mut sched, round * 10 * SECOND + 5 * SECOND);
        let next = sched.worker_started();
        sched.worker_gone(next, Death::Unasked, 0, |()| false, |()| true);
        assert!(!sched.is_broken());
    }
    let now = 200 * SECOND;
    job(&mut sched, 1, 1);
    assert_eq!(sends(&step(&mut sched, now)), [(one, 1)]);
    sched.finished(one, 1, Took { nanos: 1_000, began: 0 }, Answered::Completed, now);
    sched.worker_gone(one, Death::Unasked, 0, |()| false, |()| true);
    step(&mut sched, now + 10 * SECOND);
    step(&mut sched, now + 20 * SECOND);
    let next = sched.worker_started();
    sched.worker_gone(next, Death::Unasked, 0, |()| false, |()| true);
    assert!(sched.is_broken());
}

#[test]
fn jobs_that_no_worker_can_do_for_want_of_something_end_and_later_ones_do_not() {
    let mut sched = Scheduler::<()>::new(Config::of(1));
    step(&mut sched, 0);
    let first = job(&mut sched, 1, 2);
    let starting = sched.worker_started();
    sched.worker_postponed(starting);
    sched.drop_open_jobs();
    let commands = step(&mut sched, 1);
    assert!(commands.contains(&Command::Ended(first)) && sched.is_running());
    let second = job(&mut sched, 1, 1);
    let worker = sched.worker_started();
    sched.worker_up(worker, 2);
    assert_eq!(sends(&step(&mut sched, 3)), [(worker, 1)]);
    sched.finished(worker, 1, Took { nanos: 1_000, began: 0 }, Answered::Completed, 4);
    assert!(step(&mut sched, 5).contains(&Command::Ended(second)));
}

#[test]
fn workers_that_lack_something_before_they_are_ready_do_not_break_a_pool() {
    let mut sched = Scheduler::<()>::new(Config::of(2));
    step(&mut sched, 0);
    let first = job(&mut sched, 1, 2);
    let mut starting = [sched.worker_started(), sched.worker_started()];
    for turn in 0..20 {
        let (worker, now) = (turn % 2, 1 + turn as u64);
        sched.worker_postponed(starting[worker]);
        assert_eq!(step(&mut sched, now), [], "the outside starts another by itself");
        starting[worker] = sched.worker_started();
    }
    assert!(!sched.is_broken() && sched.greeted() == 0);
    // One of them is starting all the time.
    sched.drop_open_jobs();
    assert!(step(&mut sched, 30).contains(&Command::Ended(first)) && sched.is_running());
    job(&mut sched, 1, 1);
    sched.worker_up(starting[0], 31);
    assert_eq!(sends(&step(&mut sched, 32)), [(starting[0], 1)]);
    sched.drop_open_jobs();
    assert!(!step(&mut sched, 33).iter().any(|c| matches!(c, Command::Ended(_))), "a worker is at work on it");
    assert_eq!(sched.greeted(), 1);
}

#[test]
fn a_terminated_pool_does_not_wait_for_starts_that_nobody_will_make() {
    let mut sched = Scheduler::<()>::new(Config::of(2));
    step(&mut sched, 0);
    sched.terminate();
    step(&mut sched, 1);
    assert!(sched.is_drained(), "{}", sched.describe());
}

#[test]
fn a_broken_pool_that_may_get_more_jobs_is_not_done_with() {
    let mut sched = Scheduler::<()>::new(Config::of(1));
    let mut now = 0;
    while !sched.is_broken() {
        if step(&mut sched, now).contains(&Command::Start(1)) {
            let worker = sched.worker_started();
            sched.worker_gone(worker, Death::Unasked, 0, |()| false, |()| true);
        }
        now += 100 * MILLI;
        assert!(now < 1_000_000 * MILLI, "{}", sched.describe());
    }
    assert!(!sched.is_drained(), "{}", sched.describe());
    sched.close();
    step(&mut sched, now);
    assert!(sched.is_drained(), "{}", sched.describe());
}

#[test]
fn a_worker_without_room_and_without_tasks_is_tried_again() {
    let (mut sched, [worker]) = pool();
    job(&mut sched, 1, 1);
    assert_eq!(step(&mut sched, 2), [Command::Send { worker, number: 1 }]);
    sched.refused(worker, 1);
    assert_eq!(step(&mut sched, 3), []);
    assert!(sched.wants_tick(), "nobody would ever come again");
    assert_eq!(step(&mut sched, 2 * MILLI), [Command::Send { worker, number: 2 }]);
}

#[test]
fn nothing_is_added_behind_tasks_that_are_being_taken_back() {
    let (mut sched, [worker]) = pool();
    teach(&mut sched, 2);
    let slow = job(&mut sched, 1, 2);
    assert_eq!(sends(&step(&mut sched, 4)).len(), 1, "the slow job's second task waits for its first");
    job(&mut sched, 2, 1);
    sched.cancel(slow);
    let commands = step(&mut sched, 5);
    assert!(commands.contains(&Command::Revoke { worker, count: 1 }));
    assert_eq!(sends(&commands), [], "the outside would take back this one instead");
    sched.revoked(worker, 1);
    let commands = step(&mut sched, 5);
    assert!(commands.contains(&Command::Ended(slow)));
    assert_eq!(sends(&commands).len(), 1);
}

#[test]
fn adaptive_chunks_leave_room_for_others_in_the_window() {
    let (mut sched, [_worker]) = pool();
    let window = Some(8);
    let shape = JobShape { supply: Supply::OnDemand, chunk: Chunk::Adaptive, window, ..SHAPE };
    sched.submit(shape).expect("the pool runs");
    let commands = step(&mut sched, 2);
    assert!(matches!(commands[..], [Command::Fill { items: 1..=2, .. }]), "{commands:?}");
}

#[test]
fn tasks_that_several_workers_gave_back_go_out_oldest_first() {
    let (mut sched, workers) = pool::<2>();
    teach(&mut sched, 1);
    job(&mut sched, 1, 6);
    assert_eq!(sends(&step(&mut sched, 4)).len(), 6);
    let first = workers.map(|w| sched.assigned(w).next().map_or(0, |t| t.number));
    workers.iter().zip(first).for_each(|(&w, number)| sched.refused(w, number));
    step(&mut sched, 5);
    let again = sends(&step(&mut sched, 2 * MILLI));
    let indices: Vec<u64> = again.iter().filter_map(|&(w, n)| sched.task(w, n).map(|t| t.index)).collect();
    assert_eq!(indices, [0, 1, 2, 3, 4, 5]);
}

#[test]
fn what_waits_behind_a_long_task_goes_to_a_worker_that_has_slept() {
    let (mut sched, workers) = pool::<2>();
    teach(&mut sched, 1);
    job(&mut sched, 1, 4);
    let sent = sends(&step(&mut sched, 4));
    let (stuck, idle) = (sent[0].0, if sent[0].0 == workers[0] { workers[1] } else { workers[0] });
    let done: Vec<u64> = sched.assigned(idle).map(|t| t.number).collect();
    for number in done {
        sched.finished(idle, number, Took { nanos: 1_000, began: 0 }, Answered::Completed, 5);
    }
    let waiting = sched.assigned(stuck).count() - 1;
    assert!(waiting > 0);
    let commands = step(&mut sched, 5 * MILLI);
    assert_eq!(commands, [Command::Revoke { worker: stuck, count: waiting - waiting / 2 }]);
    sched.revoked(stuck, waiting - waiting / 2);
    let again = sends(&step(&mut sched, 5 * MILLI));
    assert!(!again.is_empty() && again.iter().all(|&(w, _)| w == idle), "{again:?}");
}

fn terms(priority: i32) -> Option<Arc<Terms>> {
    Some(Arc::new(Terms { priority, ..Terms::default() }))
}

/// The jobs of the next tasks, in the order in which a single worker gets them.
fn order(sched: &mut Scheduler<()>, worker: WorkerId, count: usize) -> Vec<JobId> {
    let mut order = Vec::new();
    for now in 0..count as u64 {
        step(sched, 10 + now);
        let Some(task) = sched.assigned(worker).next() else { break };
        let (job, number) = (task.job, task.number);
        order.push(job);
        // As long as a worker has work for, so that it has one task at a time.
        sched.finished(worker, number, Took { nanos: 5 * MILLI, began: 0 }, Answered::Completed, 10 + now);
    }
    order
}

#[test]
fn tasks_of_a_lower_priority_number_go_first() {
    let (mut sched, [worker]) = pool();
    let mut jobs = Vec::new();
    for priority in [3, -1, 0, 7] {
        let job = sched.submit(JobShape { terms: terms(priority), ..SHAPE }).expect("the pool runs");
        (0..2).for_each(|_| assert!(sched.add(job, 1, (), 0).is_some()));
        sched.filled(job, true);
        jobs.push(job);
    }
    let [three, first, zero, last] = jobs[..] else { panic!("four jobs") };
    assert_eq!(order(&mut sched, worker, 8), [first, first, zero, zero, three, three, last, last]);
}

#[test]
fn calls_share_the_workers_by_the_work_that_they_were_given() {
    let (mut sched, [worker]) = pool();
    let long = job(&mut sched, 1, 100);
    order(&mut sched, worker, 20);
    // What an earlier call was given in the past does not count.
    let short = job(&mut sched, 1, 10);
    let shared = order(&mut sched, worker, 22);
    let short_ones = shared.iter().filter(|&&id| id == short).count();
    assert_eq!(short_ones, 10, "the short call has ended: {shared:?}");
    assert!(shared.contains(&long), "the long call goes on beside it");
}

#[test]
fn single_calls_together_are_one_call() {
    let (mut sched, [worker]) = pool();
    let single = |sched: &mut Scheduler<()>| {
        let job = sched.submit(JobShape { items: Some(1), ..SHAPE }).expect("the pool runs");
        sched.add(job, 1, (), 0);
        sched.filled(job, true);
        job
    };
    let singles: Vec<JobId> = (0..50).map(|_| single(&mut sched)).collect();
    let map = job(&mut sched, 1, 10);
    let shared = order(&mut sched, worker, 24);
    assert_eq!(shared.iter().filter(|&&id| id == map).count(), 10, "{shared:?}");
    let in_order: Vec<_> = shared.iter().filter(|&&id| id != map).copied().collect();
    assert_eq!(in_order, singles[..in_order.len()], "single calls go in the order in which they came");
}
