//! A process killed with SIGKILL loses no acknowledged entry. The victim is this test binary, run again.

use std::{
    env,
    io::{BufRead as _, BufReader},
    process::{Command, Stdio},
};

use super::*;

/// Variable with the victim's folder; without it the victim is a test that does nothing.
const FOLDER: &str = "PROMPTKEEP_TEST_CRASH_FOLDER";
const WRITERS: u64 = 8;
/// Acknowledgements before the kill.
const ENOUGH: usize = 200;

/// Stores entries until it is killed, and prints the number of each acknowledged entry.
#[tokio::test]
async fn victim() {
    let Some(folder) = env::var_os(FOLDER) else { return };
    let store = open_disk(Path::new(&folder));
    let writers = (0..WRITERS).map(|writer| {
        let store = store.clone();
        tokio::spawn(async move {
            for n in 0.. {
                let number = n * WRITERS + writer;
                put(&*store, entry(number)).await;
                // Queued entries in between, so that batches mix both kinds.
                let queued = Arc::new(entry(1_000_000_000 + number));
                store.put(queued, Durability::Queued).await.unwrap();
                println!("acknowledged {number}");
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
}

/// Kills the victim while it writes and returns the entries it acknowledged.
fn run_and_kill(folder: &Path) -> Vec<u64> {
    let mut child = Command::new(env::current_exe().unwrap())
        .args(["--exact", "store::crash::victim", "--nocapture"])
        .env(FOLDER, folder)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut numbers = Vec::new();
    // Lines printed before the kill are still in the pipe after it.
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        let number = line.rsplit_once("acknowledged ").map(|(_, number)| number.parse::<u64>().unwrap());
        numbers.extend(number);
        if numbers.len() == ENOUGH {
            child.kill().unwrap();
        }
    }
    child.wait().unwrap();
    numbers
}

#[tokio::test]
async fn a_killed_process_loses_no_acknowledged_entry() {
    let folder = tempfile::tempdir().unwrap();
    for _ in 0..3 {
        let acknowledged = run_and_kill(folder.path());
        assert!(acknowledged.len() >= ENOUGH);
        let store = open_disk(folder.path());
        for number in acknowledged {
            let found = store.get(entry(number).key).await.unwrap();
            assert_eq!(found.unwrap().completion, entry(number).completion, "entry {number}");
        }
        assert_eq!(store.unreadable(), 0);
    }
}
