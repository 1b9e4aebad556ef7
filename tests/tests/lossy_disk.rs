//! A disk with a volatile cache is what it claims to be: what the file system above was told is durable
//! survives a power cut, and nothing else need.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::fs::{Advice, IFlags, fadvise, ioctl_getflags, ioctl_setflags};
use stonechat_tests::crash::cache::Loss;
use stonechat_tests::crash::disk::{Disk, DiskShelf};
use stonechat_tests::crash::lossy::{LossyDevice, Requests};
use stonechat_tests::eventually;

const DISK_BYTES: u64 = 64 << 20;
const BLOCK: usize = 4096;

/// A shelf and a disk on it, or a word that there cannot be one.
fn disk() -> Option<(Disk, DiskShelf)> {
    match DiskShelf::lossy(None, 1) {
        Ok(mut shelf) => Some((shelf.make(DISK_BYTES).expect("the probe could"), shelf)),
        Err(missing) => {
            // Past the capture of the test harness: tests/run.sh repeats it at its end.
            let _ = writeln!(
                std::io::stderr(),
                "NOT RUN: no disk with a cache here: {missing}"
            );
            None
        }
    }
}

fn device(disk: &Disk) -> &LossyDevice {
    disk.device().expect("it is of a lossy shelf")
}

/// What the device is asked meanwhile.
fn requests(disk: &Disk, work: impl FnOnce()) -> Requests {
    let before = device(disk).requests();
    work();
    let after = device(disk).requests();
    Requests {
        writes: after.writes - before.writes,
        flushes: after.flushes - before.flushes,
    }
}

/// A file whose blocks are all there, so that writing to it changes nothing else.
fn laid_out(disk: &Disk, name: &str) -> File {
    let path = disk.path().join(name);
    let file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(path)
        .expect("the disk is empty");
    file.write_all_at(&vec![1; 64 * BLOCK], 0)
        .expect("there is room");
    file.sync_all().expect("it syncs");
    file
}

/// Hands what was written to the device, and asks for no flush: what `sync_file_range` does.
fn hand_over(disk: &Disk, file: &File) {
    let before = device(disk).requests().writes;
    fadvise(file, 0, None, Advice::DontNeed).expect("the kernel knows it");
    eventually("the write at the device", || {
        (device(disk).requests().writes > before).then_some(())
    });
}

/// The first byte of the file after a power cut with this loss.
fn after_cut(disk: &Disk, shelf: &mut DiskShelf, loss: Loss) -> u8 {
    let copied = shelf.copy_with(disk, loss).expect("it can be cut");
    let left = copied.mount().expect("it can be mounted");
    let byte = std::fs::read(left.path().join("file")).expect("its name was synced")[0];
    left.remove().expect("nobody uses it");
    byte
}

#[test]
fn a_sync_is_a_flush_and_handing_over_is_none() {
    let Some((disk, _shelf)) = disk() else { return };
    let file = laid_out(&disk, "file");
    let written = requests(&disk, || {
        file.write_all_at(&[2; BLOCK], 0).expect("there is room");
        hand_over(&disk, &file);
    });
    assert!(written.writes > 0 && written.flushes == 0, "{written:?}");
    let synced = requests(&disk, || {
        file.write_all_at(&[3; BLOCK], 0).expect("there is room");
        file.sync_data().expect("it syncs");
    });
    assert!(synced.writes > 0 && synced.flushes > 0, "{synced:?}");
    drop(file);
    disk.remove().expect("nobody uses it");
}

/// What a write through the database's file has to be: on the medium when it returns.
#[test]
fn a_file_that_is_written_through_flushes_with_each_write() {
    let Some((disk, _shelf)) = disk() else { return };
    let file = laid_out(&disk, "file");
    let flags = ioctl_getflags(&file).expect("ext4 has attributes");
    ioctl_setflags(&file, flags | IFlags::SYNC).expect("it is our file");
    let within = requests(&disk, || {
        file.write_all_at(&[2; BLOCK], 0).expect("there is room");
    });
    assert!(within.writes > 0 && within.flushes > 0, "{within:?}");
    // The new length is durable as well: ext4's own journal, with barriers of its own.
    let longer = requests(&disk, || {
        file.write_all_at(&[2; BLOCK], 64 * BLOCK as u64)
            .expect("there is room");
    });
    assert!(longer.flushes > 0, "{longer:?}");
    drop(file);
    disk.remove().expect("nobody uses it");
}

#[test]
fn a_cut_keeps_what_was_synced_and_may_lose_the_rest() {
    let Some((disk, mut shelf)) = disk() else {
        return;
    };
    let file = laid_out(&disk, "file");
    file.write_all_at(&[2; BLOCK], 0).expect("there is room");
    hand_over(&disk, &file);
    assert_eq!(after_cut(&disk, &mut shelf, Loss::All), 1);
    assert_eq!(after_cut(&disk, &mut shelf, Loss::None), 2);
    // The cuts did nothing to the disk itself.
    file.sync_data().expect("it syncs");
    for loss in Loss::ALL {
        assert_eq!(after_cut(&disk, &mut shelf, loss), 2, "{loss:?}");
    }
    drop(file);
    disk.remove().expect("nobody uses it");
}

/// Held, it answers nobody, so nobody can believe what a cut at that moment would lose.
#[test]
fn a_disk_that_is_held_answers_nothing_until_it_is_released() {
    let Some((disk, mut shelf)) = disk() else {
        return;
    };
    let file = laid_out(&disk, "file");
    file.write_all_at(&[2; BLOCK], 0).expect("there is room");
    let held = device(&disk).hold(usize::MAX, Duration::ZERO);
    let writer = std::thread::spawn(move || {
        file.sync_data().expect("it syncs once it is released");
        file
    });
    assert_eq!(after_cut(&disk, &mut shelf, Loss::None), 1);
    assert!(!writer.is_finished());
    drop(held);
    drop(writer.join().expect("it does not panic"));
    assert_eq!(after_cut(&disk, &mut shelf, Loss::All), 2);
    disk.remove().expect("nobody uses it");
}

/// The write that fills the cache holds the disk by itself.
#[test]
fn a_disk_is_held_once_so_much_is_not_flushed() {
    let Some((disk, mut shelf)) = disk() else {
        return;
    };
    let file = laid_out(&disk, "file");
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let writer = std::thread::spawn(move || {
        for nth in 0..10_000_000_u64 {
            if stopped.load(Ordering::Relaxed) {
                break;
            }
            let at = nth % 64 * BLOCK as u64;
            file.write_all_at(&[2; BLOCK], at).expect("there is room");
            fadvise(&file, 0, None, Advice::DontNeed).expect("the kernel knows it");
        }
        file
    });
    let held = device(&disk).hold(16 * BLOCK, Duration::from_secs(30));
    let requests = device(&disk).requests();
    let copied = shelf.copy_with(&disk, Loss::None).expect("it can be cut");
    let cut = copied.cut().expect("it has a cache");
    assert!(
        cut.bytes >= 16 * BLOCK && cut.bytes_left == cut.bytes,
        "{cut:?}"
    );
    assert_eq!(device(&disk).requests(), requests, "nothing is answered");
    stop.store(true, Ordering::Relaxed);
    drop(held);
    let file = writer.join().expect("it does not panic");
    file.sync_all().expect("it syncs now");
    assert!(device(&disk).requests().flushes > requests.flushes);
    drop(file);
    disk.remove().expect("nobody uses it");
}

/// Set for the process that is killed.
const VICTIM: &str = "STONECHAT_TEST_VICTIM";

/// Not a test of its own: the process that is killed. A thread of it waits for its own disk, in the
/// kernel, where no signal reaches it.
#[test]
#[ignore = "run by the test below"]
fn victim() {
    if std::env::var_os(VICTIM).is_none() {
        return;
    }
    let Some((disk, _shelf)) = disk() else { return };
    let file = laid_out(&disk, "file");
    let _held = device(&disk).hold(usize::MAX, Duration::ZERO);
    let writer = std::thread::spawn(move || file.sync_data());
    let stack = |task: &Path| std::fs::read_to_string(task.join("stat")).unwrap_or_default();
    eventually("a thread that waits for the disk", || {
        let tasks = std::fs::read_dir("/proc/self/task").ok()?;
        let mut tasks = tasks.filter_map(|task| task.ok().map(|task| task.path()));
        tasks
            .any(|task| stack(&task).contains(") D "))
            .then_some(())
    });
    println!("holding {}", disk.path().display());
    let _ = writer.join();
}

/// Whoever is killed with such a disk leaves nobody waiting and nothing mounted.
#[test]
fn a_disk_whose_process_is_killed_goes_away() {
    if let Err(missing) = DiskShelf::lossy(None, 1) {
        let _ = writeln!(std::io::stderr(), "NOT RUN: no disk here: {missing}");
        return;
    }
    let program = std::env::current_exe().expect("this program");
    let mut victim = Command::new(program)
        .args(["--exact", "victim", "--ignored", "--nocapture"])
        .env(VICTIM, "1")
        .stdout(Stdio::piped())
        .spawn()
        .expect("it runs");
    let said = BufReader::new(victim.stdout.take().expect("piped"));
    let mount = said.lines().find_map(|line| {
        let line = line.expect("it speaks");
        line.split_once("holding ")
            .map(|(_, mount)| mount.to_owned())
    });
    let mount = mount.expect("it says where its disk is");
    victim.kill().expect("it is ours");
    // It cannot end while one of its threads waits for the disk.
    eventually("the end of the process", || {
        victim.try_wait().expect("it is ours")
    });
    let shelf = Path::new(&mount).parent().expect("of the shelf");
    eventually("everything of it unmounted", || {
        let mounts = std::fs::read_to_string("/proc/mounts").expect("there is /proc");
        (!mounts.contains(&*shelf.to_string_lossy())).then_some(())
    });
    std::fs::remove_dir_all(shelf).expect("nothing is mounted there");
}
