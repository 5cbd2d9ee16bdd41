mod damage;

use std::fs;

use super::*;
use tempfile::TempDir;

const START: Timestamp = Timestamp::from_ms(1_777_636_984_567);

/// All there is, on one page.
const ALL: Most = Most {
    lines: 100_000,
    bytes: 1 << 30,
};

fn ep() -> EndpointId {
    "ep".parse().unwrap()
}

/// Logs in a directory that outlives them.
struct Scene {
    dir: TempDir,
    bytes_max: u64,
    clock: Clock,
    logs: Logs,
}

impl Scene {
    fn new(bytes_max: u64) -> Self {
        Self::on(
            tempfile::tempdir().unwrap(),
            bytes_max,
            Clock::manual(START),
        )
    }

    fn on(dir: TempDir, bytes_max: u64, clock: Clock) -> Self {
        let logs = Logs::open(&dir.path().join("logs"), bytes_max, clock.clone()).unwrap();
        Self {
            dir,
            bytes_max,
            clock,
            logs,
        }
    }

    /// Another server on the same directory.
    async fn restart(self) -> Self {
        self.logs.close().await;
        Self::on(self.dir, self.bytes_max, self.clock)
    }

    fn say(&self, worker: &str, text: &str) {
        let worker = worker.parse().unwrap();
        self.logs.say(&ep(), &worker, Source::Worker, text);
    }

    async fn reader(&self, begin: Begin) -> Reader {
        self.filtered(begin, Filter::default()).await
    }

    async fn filtered(&self, begin: Begin, filter: Filter) -> Reader {
        let reader = self.logs.read(&ep(), filter).await.expect("it is open");
        reader.go(begin).await.unwrap()
    }

    /// The texts of all lines from somewhere on.
    async fn texts(&self, begin: Begin) -> Vec<String> {
        let mut reader = self.reader(begin).await;
        rest(&mut reader).await.0
    }

    fn files(&self) -> Vec<(String, Vec<u8>)> {
        let dir = fs::read_dir(self.dir.path().join("logs/ep")).unwrap();
        let mut files: Vec<(String, Vec<u8>)> = dir
            .map(|entry| {
                let entry = entry.unwrap();
                let name = entry.file_name().into_string().unwrap();
                (name, fs::read(entry.path()).unwrap())
            })
            .collect();
        files.sort();
        files
    }
}

fn text_of(line: &Record<'_>, to: &mut Vec<u8>) {
    to.extend_from_slice(line.text.as_bytes());
    to.push(b'\n');
}

/// The texts of all lines that are there, and how often some were missed.
async fn rest(reader: &mut Reader) -> (Vec<String>, usize) {
    let (mut texts, mut missed) = (Vec::new(), 0);
    loop {
        let taken = std::mem::replace(reader, Reader::nowhere());
        let (next, page) = taken.page(ALL, text_of).await.unwrap();
        *reader = next;
        missed += usize::from(page.missed.is_some());
        let text = String::from_utf8(page.text).unwrap();
        let lines: Vec<String> = text.lines().map(str::to_owned).collect();
        assert_eq!(lines.len(), page.lines);
        texts.extend(lines);
        if !page.more {
            return (texts, missed);
        }
    }
}

impl Reader {
    /// What stands in for one that is away.
    fn nowhere() -> Self {
        let heads = watch::channel(segments::Head::default()).1;
        Self::new(
            "".into(),
            heads,
            Filter::default(),
            Arc::new(Semaphore::new(1)),
        )
    }
}

#[tokio::test]
async fn lines_are_kept_in_order_over_restarts() {
    let scene = Scene::new(1 << 20);
    assert_eq!(scene.texts(Begin::After(0)).await, [""; 0]);
    assert!(!scene.dir.path().join("logs").exists(), "nothing, no files");
    scene.say("w1", "first");
    scene.say("w2", "second\nof two lines");
    let expected = ["first", "second", "of two lines"];
    assert_eq!(scene.texts(Begin::After(0)).await, expected);
    let scene = scene.restart().await;
    assert_eq!(scene.texts(Begin::After(0)).await, expected);
    scene.say("w3", "third");
    let expected = ["first", "second", "of two lines", "third"];
    assert_eq!(scene.texts(Begin::After(0)).await, expected);
    assert_eq!(scene.files().len(), 1, "a restart goes on in the same file");
}

#[tokio::test]
async fn files_are_their_owners_alone() {
    use std::os::unix::fs::MetadataExt as _;
    let scene = Scene::new(1 << 20);
    scene.say("w", "x");
    scene.texts(Begin::After(0)).await;
    let logs = scene.dir.path().join("logs");
    let dir = logs.join("ep");
    let file = dir.join(&scene.files()[0].0);
    for (path, mode) in [(logs, 0o700), (dir, 0o700), (file, 0o600)] {
        let found = fs::metadata(&path).unwrap().mode() & 0o777;
        assert_eq!(found, mode, "{}", path.display());
    }
}

#[tokio::test]
async fn a_log_stays_below_its_bound_and_loses_its_oldest_lines() {
    let bound = 16 * 1024;
    let mut scene = Scene::new(bound);
    for round in 0..20 {
        for n in 0..100 {
            scene.say("w", &format!("{round} {n} {}", "x".repeat(n)));
        }
        let texts = scene.texts(Begin::After(0)).await;
        let bytes: usize = scene.files().iter().map(|(_, bytes)| bytes.len()).sum();
        assert!(bytes as u64 <= bound, "{bytes} in round {round}");
        let last = texts.last().unwrap();
        assert!(last.starts_with(&format!("{round} 99 ")), "{last}");
        if round > 0 {
            assert!(bytes as u64 > bound * 3 / 4, "{bytes} in round {round}");
            assert!(scene.files().len() > 8, "{}", scene.files().len());
        }
        // Those that are left are the last ones, and all of them.
        let mut numbers = texts.iter().map(|text| {
            let mut words = text.split(' ').map(|word| word.parse().unwrap_or(0));
            words.next().unwrap() * 100 + words.next().unwrap()
        });
        let first: usize = numbers.next().unwrap();
        assert!(numbers.enumerate().all(|(n, it)| it == first + 1 + n));
        scene = scene.restart().await;
    }
}

#[tokio::test]
async fn a_line_longer_than_a_file_is_kept_too() {
    let scene = Scene::new(1600);
    for n in 0..10 {
        scene.say("w", &format!("{n}{}", "x".repeat(500)));
    }
    let texts = scene.texts(Begin::After(0)).await;
    assert_eq!(texts.len(), 2);
    assert!(texts[1].starts_with("9x"));
    // One that is longer than all is too much, and harms no other.
    scene.say("w", &"y".repeat(1700));
    scene.say("w", "after");
    assert_eq!(scene.texts(Begin::Tail(1)).await, ["after"]);
}

#[tokio::test]
async fn reading_begins_where_it_is_wanted() {
    let scene = Scene::new(16 * 1024);
    for n in 0..300 {
        scene.say("w", &format!("{n}"));
        scene.clock.advance(1_000);
    }
    let all = scene.texts(Begin::After(0)).await;
    let (count, oldest) = (all.len(), all[0].parse::<usize>().unwrap());
    assert!(count > 100 && oldest > 0, "the beginning is gone");
    for tail in [0, 1, 2, 50, count - 1, count, count + 1, usize::MAX] {
        let expected = &all[count.saturating_sub(tail)..];
        assert_eq!(scene.texts(Begin::Tail(tail)).await, expected, "{tail}");
    }
    for first in [0, oldest, oldest + 1, 250, 299, 300] {
        let at = START.plus_ms(first as u64 * 1000);
        let expected = &all[first.saturating_sub(oldest)..];
        assert_eq!(scene.texts(Begin::Since(at)).await, expected, "{first}");
        let expected = &all[(first + 1).saturating_sub(oldest).min(count)..];
        let later = at.plus_ms(1);
        assert_eq!(scene.texts(Begin::Since(later)).await, expected, "{first}");
    }
    // A place is where a page ended, wherever that was.
    for lines in [1, 7, 99] {
        let mut texts = Vec::new();
        let mut position = 0;
        loop {
            let reader = scene.reader(Begin::After(position)).await;
            let (_, page) = reader.page(Most { lines, ..ALL }, text_of).await.unwrap();
            assert!(page.lines <= lines && page.missed.is_none());
            position = page.position;
            texts.extend(
                String::from_utf8(page.text)
                    .unwrap()
                    .lines()
                    .map(str::to_owned),
            );
            if !page.more {
                break;
            }
        }
        assert_eq!(texts, all, "{lines}");
    }
    // One of a log that is no more is no place to wait at.
    let mut reader = scene.reader(Begin::After(u64::MAX)).await;
    scene.say("w", "next");
    scene.texts(Begin::Tail(0)).await;
    assert_eq!(rest(&mut reader).await.0, ["next"]);
}

#[tokio::test]
async fn lines_are_found_by_worker_job_and_source() {
    let scene = Scene::new(64 * 1024);
    let [one, two] = [1, 2].map(|n| JobId::new(START, [n; 16], false));
    let sdk = |job: JobId, message: &str| {
        format!(r#"{{"requestId": "{job}", "message": "{message}", "level": "INFO"}}"#)
    };
    scene.say("a", "up");
    scene.say("a", &sdk(one, "Started."));
    scene.say("b", &sdk(two, "Started."));
    scene.say("a", "of one");
    scene.say("b", "of two");
    scene
        .logs
        .system(&ep(), &"a".parse().unwrap(), "stopping: idle");
    scene.say("a", &sdk(one, "Finished."));
    scene.say("a", "of none");
    let found = async |filter: Filter| {
        let mut reader = scene.filtered(Begin::After(0), filter.clone()).await;
        let texts = rest(&mut reader).await.0;
        // Counted from the end they are the same.
        for tail in 0..=texts.len() {
            let mut reader = scene.filtered(Begin::Tail(tail), filter.clone()).await;
            assert_eq!(rest(&mut reader).await.0, texts[texts.len() - tail..]);
        }
        texts
    };
    let of_job = |job: JobId| Filter {
        job: Some(job.to_string()),
        ..Filter::default()
    };
    let started = sdk(one, "Started.");
    let ended = sdk(one, "Finished.");
    assert_eq!(found(of_job(one)).await, [&*started, "of one", &*ended]);
    assert_eq!(found(of_job(two)).await, [&*sdk(two, "Started."), "of two"]);
    let of_worker = |worker: &str, source| Filter {
        worker: Some(worker.to_owned()),
        source,
        ..Filter::default()
    };
    assert_eq!(found(of_worker("b", None)).await.len(), 2);
    assert_eq!(found(of_worker("a", Some(Source::Worker))).await.len(), 5);
    let system = found(of_worker("a", Some(Source::System))).await;
    assert_eq!(system, ["stopping: idle"]);
    assert_eq!(found(of_worker("nobody", None)).await, [""; 0]);
}

#[tokio::test]
async fn who_reads_too_slowly_is_told_what_is_missing() {
    let scene = Scene::new(16 * 1024);
    scene.say("w", "0");
    let mut slow = scene.reader(Begin::After(0)).await;
    assert_eq!(rest(&mut slow).await, (vec!["0".to_owned()], 0));
    let position = slow.position();
    for n in 1..2_000 {
        scene.say("w", &n.to_string());
    }
    let left = scene.texts(Begin::After(0)).await;
    assert!(left.len() < 1_000);
    // Both one that stayed and one that comes back.
    let mut back = scene.reader(Begin::After(position)).await;
    for reader in [&mut slow, &mut back] {
        let (texts, missed) = rest(reader).await;
        assert_eq!(missed, 1);
        assert!(left.ends_with(&texts) || texts.ends_with(&left));
    }
    // What was read up to the last line of a file that is gone is not missed.
    let mut reader = scene.reader(Begin::After(0)).await;
    rest(&mut reader).await;
    let scene = scene.restart().await;
    let mut reader = scene.reader(Begin::After(reader.position())).await;
    scene.say("w", "next");
    scene.texts(Begin::Tail(0)).await;
    assert_eq!(rest(&mut reader).await, (vec!["next".to_owned()], 0));
}

#[tokio::test]
async fn nothing_is_lost_or_doubled_between_what_was_and_what_comes() {
    let scene = Arc::new(Scene::new(1 << 20));
    let lines = 20_000;
    let writing = {
        let scene = Arc::clone(&scene);
        std::thread::spawn(move || {
            for n in 0..lines {
                scene.say("w", &n.to_string());
            }
        })
    };
    // Readers that begin at different times while it is written, and follow.
    let mut readers = Vec::new();
    for _ in 0..5 {
        let reader = scene.reader(Begin::Tail(10)).await;
        readers.push(tokio::spawn(async move {
            let (mut reader, mut texts) = (reader, Vec::new());
            while texts.last().is_none_or(|last: &String| last != "19999") {
                texts.extend(rest(&mut reader).await.0);
                if texts.last().is_none_or(|last| last != "19999") {
                    assert!(reader.more().await);
                }
            }
            texts
        }));
        tokio::task::yield_now().await;
    }
    writing.join().unwrap();
    for reader in readers {
        let texts = tokio::time::timeout(std::time::Duration::from_secs(60), reader);
        let texts = texts.await.expect("it comes to an end").unwrap();
        let numbers: Vec<usize> = texts.iter().map(|text| text.parse().unwrap()).collect();
        let first = numbers[0];
        assert!(numbers.iter().copied().eq(first..lines), "from {first} on");
    }
}

#[tokio::test]
async fn readers_come_to_an_end_with_the_log() {
    let scene = Scene::new(1 << 20);
    let mut reader = scene.reader(Begin::Tail(0)).await;
    scene.say("w", "last");
    scene.logs.close().await;
    scene.say("w", "too late");
    assert!(reader.more().await);
    assert_eq!(rest(&mut reader).await.0, ["last"]);
    assert!(!reader.more().await);
    assert!(scene.logs.read(&ep(), Filter::default()).await.is_none());
}

#[tokio::test]
async fn so_many_may_follow_and_places_become_free() {
    let scene = Scene::new(1 << 20);
    let mut places: Vec<Place> = (0..FOLLOWERS_MAX)
        .map(|_| scene.logs.follow(&ep()).unwrap())
        .collect();
    assert!(scene.logs.follow(&ep()).is_none());
    assert!(scene.logs.follow(&"other".parse().unwrap()).is_some());
    places.pop();
    assert!(scene.logs.follow(&ep()).is_some());
    places.clear();
    assert!(scene.logs.followers.lock().is_empty());
}
