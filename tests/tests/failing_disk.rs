//! Disks that fail under the real server: a sync or a write that fails in its system calls, and a
//! file system that is really full. Nothing accepted is lost, what is not durable is not accepted,
//! and the server does what the operations page says.

use std::fs::File;
use std::io::Write as _;
use std::time::Duration;

use stonechat_tests::crash::disk::DiskShelf;
use stonechat_tests::crash::fleet::{Fleet, FleetOptions, Phase};
use stonechat_tests::{Node, NodeOptions, eventually_within, heavy};

/// Longest wait for anything here: on busy processors one sync of a disk that is a file has taken ten
/// seconds.
const LONG: Duration = Duration::from_secs(180);
/// Exit code of a store that failed for good.
const EXIT_IO: i32 = 74;

fn fleet(node: &Node, seed: u64) -> Fleet {
    Fleet::muster(
        node,
        FleetOptions {
            users: 12,
            sends_max: 100_000,
            seed,
            disk_fails: true,
        },
    )
}

fn assert_kept(fleet: &Fleet) {
    let truth = fleet.truth();
    assert_eq!(truth.breaches_total(), 0, "{:#?}", truth.notes());
}

/// Loads the server until it ends by itself, and gives its exit code.
fn load_until_it_ends(node: &mut Node, fleet: &mut Fleet) -> Option<i32> {
    let everybody = fleet.due(0, true);
    let phase: Phase = fleet.load(node, everybody);
    eventually_within(2 * LONG, "the call fails", || {
        node.log().contains("the journal failed").then_some(())
    });
    let status = node.wait_exit();
    fleet.unload(phase);
    status.code()
}

/// The `when`th call of a thread fails, counted for each; only the committer makes so many.
fn with_failing_call(call: &str, error: &str, when: u32, seed: u64) {
    let _heavy = heavy();
    let inject = format!(
        "exec strace -D -f -qq -o strace.log -e trace={call} \
         -e inject={call}:error={error}:when={when} \"$0\" \"$@\""
    );
    let options = NodeOptions::new()
        .shell_prelude(&inject)
        .allow_log("the journal failed")
        .allow_log("the store failed")
        .allow_log("\"ERROR\"");
    let mut node = Node::start(options);
    let mut fleet = fleet(&node, seed);
    let code = load_until_it_ends(&mut node, &mut fleet);
    assert_eq!(code, Some(EXIT_IO), "{}", node.log_tail());
    assert!(
        node.log().contains("the journal failed"),
        "it says what failed: {}",
        node.log_tail()
    );
    let trace = std::fs::read_to_string(node.dir().join("strace.log")).expect("a trace");
    assert!(trace.contains("(INJECTED)"), "the call did fail");
    let accepted = fleet.truth().counts().accepted;
    assert!(accepted > 0, "it worked until then");
    // The same disk, mended.
    node.reconfigure(|options| options.shell_prelude(":"));
    node.launch();
    let everybody = fleet.due(0, true);
    fleet.settle(&node, everybody, LONG);
    assert_kept(&fleet);
    let accepted_later = fleet.truth().counts().accepted;
    assert!(
        accepted_later > accepted,
        "what was under way was sent again"
    );
}

#[test]
fn a_failed_sync_is_never_acknowledged_and_ends_the_server() {
    with_failing_call("fdatasync", "EIO", 120, 11);
}

/// A write that fails is undone and tried again; nobody is told `accepted` for it.
#[test]
fn a_failed_write_is_refused_undone_and_survived() {
    let _heavy = heavy();
    let inject = "exec strace -D -f -qq -o strace.log -e trace=pwrite64 \
                  -e inject=pwrite64:error=ENOSPC:when=100..104 \"$0\" \"$@\"";
    let options = NodeOptions::new()
        .shell_prelude(inject)
        .set("storage.disk_probe_ms", "50")
        // The database is written by other threads, which must not be hit.
        .set("storage.migrate_after_ms", "3600000")
        .set("storage.segment_age_ms_max", "86400000")
        .allow_log("cannot write to the journal");
    let mut node = Node::start(options);
    let mut fleet = fleet(&node, 12);
    let everybody = fleet.due(0, true);
    let load = fleet.load(&node, everybody);
    eventually_within(LONG, "sends are refused, then accepted again", || {
        node.log().contains("the disk has room again").then_some(())
    });
    let accepted = fleet.truth().counts().accepted;
    eventually_within(LONG, "it goes on", || {
        (fleet.truth().counts().accepted > accepted + 100).then_some(())
    });
    node.kill9();
    fleet.unload(load);
    let counts = fleet.truth().counts();
    assert!(counts.put_off > 0, "senders were told: {counts:?}");
    node.reconfigure(|options| options.shell_prelude(":"));
    node.launch();
    fleet.settle(&node, everybody, LONG);
    assert_kept(&fleet);
}

/// The journal meets the full disk.
#[test]
fn a_full_disk_refuses_keeps_delivers_and_resumes() {
    let quiet = |options: NodeOptions| {
        options
            .set("storage.headroom_bytes", "0")
            .set("storage.migrate_after_ms", "3600000")
            // One segment throughout: when one is let go the database is written.
            .set("storage.prepare_from_bytes", "67108864")
            .set("storage.segment_age_ms_max", "86400000")
            .allow_log("cannot write to the journal")
    };
    fill_up(quiet, 0, 13);
}

/// The database would, if it were not kept from it.
#[test]
fn a_nearly_full_disk_stops_before_the_database_meets_it() {
    let moving = |options: NodeOptions| {
        options
            .set("storage.headroom_bytes", "16777216")
            .set("storage.migrate_after_ms", "20")
            .set("storage.segment_bytes_max", "262144")
            .set("storage.segment_age_ms_max", "100")
            .set("storage.journal_bytes_max", "4194304")
            .allow_log("the disk is nearly full")
            .allow_log("cannot write to the journal")
    };
    fill_up(moving, 8 << 20, 14);
}

/// A small file system with a ballast file that is written until only `left` bytes are free, and
/// until nothing fits when senders are refused; then it is deleted. Three times.
fn fill_up(settings: impl Fn(NodeOptions) -> NodeOptions, left: usize, seed: u64) {
    let _heavy = heavy();
    let mut shelf = match DiskShelf::new(None) {
        Ok(shelf) => shelf,
        Err(missing) => {
            let _ = writeln!(
                std::io::stderr(),
                "NOT RUN: no small file system here: {missing}"
            );
            return;
        }
    };
    let disk = shelf.make(96 << 20).expect("a disk");
    let options = NodeOptions::new()
        .set("storage.reserve_bytes", "1048576")
        .set("storage.disk_probe_ms", "50");
    let mut node = Node::prepared(settings(options));
    node.move_data(disk.path().join("data"));
    node.launch();
    let mut fleet = fleet(&node, seed);
    let everybody = fleet.due(0, true);
    for round in 0..3 {
        let load = fleet.load(&node, everybody);
        let put_off = fleet.truth().counts().put_off;
        let ballast = disk.path().join("ballast");
        let mut file = File::create(&ballast).expect("a ballast file");
        let fill = |file: &mut File| while file.write_all(&[round; 65536]).is_ok() {};
        let spare = disk.path().join("spare");
        std::fs::write(&spare, vec![round; left]).expect("there is room");
        fill(&mut file);
        std::fs::remove_file(&spare).expect("it was made");
        eventually_within(LONG, "senders are refused", || {
            (fleet.truth().counts().put_off > put_off).then_some(())
        });
        fill(&mut file);
        drop(file);
        eventually_within(LONG, "the node says it is not ready", || {
            (node.admin().get("/readyz").status == 503).then_some(())
        });
        assert_eq!(node.exited(), None, "it stays: {}", node.log_tail());
        // What is stored is delivered all the same.
        fleet.stop(load);
        assert!(
            fleet.drain(&node, everybody, LONG),
            "what was accepted is delivered from the full disk: {}",
            node.log_tail()
        );
        std::fs::remove_file(&ballast).expect("it was made");
        eventually_within(LONG, "the node is ready again", || {
            (node.admin().get("/readyz").status == 200).then_some(())
        });
        fleet.settle(&node, everybody, LONG);
        assert_kept(&fleet);
    }
    // And all of it is really there.
    node.crash_and_restart();
    fleet.settle(&node, everybody, LONG);
    assert_kept(&fleet);
    drop(node);
    disk.remove().expect("nobody uses it");
}
