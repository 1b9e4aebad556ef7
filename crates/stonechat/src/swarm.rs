//! `stonechat swarm`: finds the server, makes users, runs the scenario, prints what came of it. What
//! the users do and how it is judged is `stonechat-swarm`'s business.

use std::io::{stdin, stdout};
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use stonechat_swarm::report::{self, About};
use stonechat_swarm::{
    Admin, End, Finished, Ground, Outcome, Probe, READY, Recorder, Requests, Scenario,
    ScenarioError, Sources, SwarmError, Task, Title, coordinate, machine, work,
};

use crate::cli::{ConfigArgs, SwarmArgs, SwarmCommand};
use crate::commands::print;
use crate::exit::{Exit, Failure};
use crate::node_file::NodeFile;

mod front;
mod ground;
mod place;

use front::Front;

pub(crate) use ground::GroundArgs;

/// What simulated devices are called.
const DEVICE: &str = "swarm";
/// Descriptors for everything but the users' sockets.
const DESCRIPTORS_SPARE: u64 = 150;
/// And for sockets that are left behind when devices vanish.
const DESCRIPTORS_LEFT: u64 = 1_050;

impl From<ScenarioError> for Failure {
    fn from(error: ScenarioError) -> Self {
        Self::new(Exit::Config, error)
    }
}

impl From<SwarmError> for Failure {
    fn from(error: SwarmError) -> Self {
        Self::new(Exit::Unavailable, error)
    }
}

/// Does what the command line says.
pub(crate) fn run(args: &ConfigArgs, command: SwarmCommand) -> Result<(), Failure> {
    match command {
        SwarmCommand::List { scenario: None } => {
            for ready in READY {
                let about = Scenario::parse(ready.name, ready.text)?.about;
                print(format_args!("{:<14}{about}\n", ready.name))?;
            }
            Ok(())
        }
        SwarmCommand::List {
            scenario: Some(name),
        } => match READY.iter().find(|ready| ready.name == name) {
            Some(ready) => print(ready.text),
            None => Err(Failure::general(format!(
                "there is no ready scenario {name}; `stonechat swarm list` names them"
            ))),
        },
        SwarmCommand::Work => Ok(work(stdin(), stdout().lock(), |task| {
            descriptors(task, DESCRIPTORS_SPARE)
        })?),
        SwarmCommand::Run(swarm) => load(args, &swarm),
    }
}

fn load(args: &ConfigArgs, swarm: &SwarmArgs) -> Result<(), Failure> {
    let mut scenario = Scenario::load(&swarm.scenario)?;
    scenario.users = swarm.users.unwrap_or(scenario.users);
    scenario.duration_s = swarm.duration.unwrap_or(scenario.duration_s);
    scenario.seed = swarm.seed.unwrap_or(scenario.seed);
    scenario.check(&swarm.scenario)?;
    let own = &swarm.ground;
    if own.is_asked_for() && swarm.processes > 1 {
        let text = "--spawn and --chaos take one process: leave --processes away";
        return Err(Failure::new(Exit::Config, text));
    }
    // Before there is a server of its own that has to be ended.
    let requests = Requests::with_signals();
    let requests = requests.map_err(|error| Failure::io("handling signals", &error))?;
    let spawned = own.spawned(args, scenario.devices_total())?;
    let (server, admin, pid) = match &spawned {
        Some(spawned) => (spawned.server(), spawned.admin()?, spawned.pid()),
        None => {
            let settings = args.load(Vec::new())?.settings;
            let node = NodeFile::read(settings.data_dir());
            let server = place::server(swarm, &settings, node.as_ref())?;
            let admin = place::admin(swarm, args, &settings, node.as_ref())?;
            (server, admin, place::pid(swarm, node.as_ref()))
        }
    };
    // Users of their own for every run, so that nothing of an earlier one waits for them.
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.unwrap_or(Duration::ZERO);
    let prefix = format!("swarm{:x}-", now.as_millis());
    let tasks = tasks(swarm, &scenario, server, &admin, &prefix)?;
    // Found out before the run, not after it.
    if let Some(file) = &swarm.report {
        write_report(file, "this run has not come to its end\n")?;
    }
    let title = Title {
        scenario: swarm.scenario.clone(),
        duration_s: scenario.duration_s,
        seed: scenario.seed,
        server: format!("ws://{server}"),
    };
    eprintln!("creating {} users, {prefix}…", scenario.users);
    let stranger = format!("{prefix}chaos-");
    let ground = own.ground(spawned, &scenario, &admin, &stranger)?;
    let probe = Probe::start(admin.clone(), pid);
    let (finished, recorder) = go(swarm, ground, &tasks, (requests, probe), title)?;
    let mut summary = finished.summary;
    summary.seed = scenario.seed;
    summary.server = recorder.probe().map(Probe::used).unwrap_or_default();
    if let Some(file) = &swarm.report {
        let about = About {
            scenario: swarm.scenario.clone(),
            scenario_text: scenario.to_toml(),
            command: command(),
            began_unix_s: now.as_secs(),
            server: format!("ws://{server}"),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            machine: machine(),
        };
        let points = recorder.series.points();
        write_report(file, &report::html(&about, &summary, points))?;
        eprintln!("the report is {}", file.display());
    }
    if swarm.json {
        let json = serde_json::to_string_pretty(&summary).expect("figures are plain data");
        print(json + "\n")?;
    } else {
        print(&summary)?;
    }
    let clean = summary.verdict.outcome == Outcome::Clean;
    if clean && !swarm.keep_users && !own.is_own() {
        for task in &tasks {
            admin.remove(&task.prefix, task.scenario.users as usize)?;
        }
        if own.has_stranger() {
            admin.remove(&stranger, 1)?;
        }
    }
    judged(summary.verdict.outcome, &prefix)
}

/// What the exit code says of the verdict.
fn judged(outcome: Outcome, prefix: &str) -> Result<(), Failure> {
    match outcome {
        Outcome::Clean => Ok(()),
        Outcome::Broken => Err(Failure::new(
            Exit::Data,
            format!(
                "the server broke its word; its users {prefix}… are left in place, and its log has \
                 the ids and users named above"
            ),
        )),
        Outcome::Incomplete => Err(Failure::new(
            Exit::Unavailable,
            "not everything could be checked: nothing was accepted, or devices could not be reached",
        )),
    }
}

/// What each process does: all of it, or a share.
fn tasks(
    swarm: &SwarmArgs,
    scenario: &Scenario,
    server: SocketAddr,
    admin: &Admin,
    prefix: &str,
) -> Result<Vec<Task>, Failure> {
    let shares = scenario.split(swarm.processes).ok_or_else(|| {
        let text = "too few users for so many --processes: each needs two to write to each other";
        Failure::new(Exit::Config, text)
    })?;
    let several = shares.len() > 1;
    let task = |(place, scenario): (u32, Scenario)| Task {
        prefix: if several {
            format!("{prefix}{place}-")
        } else {
            prefix.to_owned()
        },
        scenario,
        server,
        admin: admin.clone(),
        device: DEVICE.to_owned(),
        sources: Sources::shared(swarm.source_addresses, server, place, swarm.processes),
    };
    Ok((0..).zip(shares).map(task).collect())
}

/// Runs the tasks: one in this process, several in processes of their own.
fn go(
    swarm: &SwarmArgs,
    ground: Ground,
    tasks: &[Task],
    (requests, probe): (Requests, Probe),
    title: Title,
) -> Result<(Finished, Recorder), Failure> {
    if let [task] = tasks {
        descriptors(task, DESCRIPTORS_SPARE + swarm.ground.descriptors())?;
        // Before the terminal is taken over: this takes a while, and what fails is read on a plain one.
        let roster = task.roster()?;
        let mut front = Front::new(swarm.plain, requests, probe, title)?;
        let finished = task.run_on(ground, roster, &mut front);
        let recorder = front.close();
        return Ok((finished?, recorder));
    }
    let program = std::env::current_exe();
    let program = program.map_err(|error| Failure::io("this program's own file", &error))?;
    let worker = || {
        let mut command = Command::new(&program);
        command.args(["swarm", "work"]);
        command
    };
    let mut front = Front::new(swarm.plain, requests, probe, title)?;
    let finished = coordinate(tasks, worker, &mut front);
    let recorder = front.close();
    Ok((finished?, recorder))
}

fn write_report(file: &Path, text: &str) -> Result<(), Failure> {
    let written = std::fs::write(file, text);
    written.map_err(|error| Failure::io(format_args!("the report {}", file.display()), &error))
}

/// This command line, without the secret.
fn command() -> String {
    let mut words: Vec<String> = vec!["stonechat".to_owned()];
    let mut secret = false;
    for word in std::env::args().skip(1) {
        let hidden = std::mem::replace(&mut secret, word == "--admin-secret");
        match word.split_once('=') {
            _ if hidden => words.push("…".to_owned()),
            Some(("--admin-secret", _)) => words.push("--admin-secret=…".to_owned()),
            _ => words.push(word),
        }
    }
    words.join(" ")
}

/// Every device is a socket.
fn descriptors(task: &Task, spare: u64) -> Result<(), Failure> {
    let devices = task.scenario.devices_total();
    let limit = rlimit::increase_nofile_limit(u64::MAX);
    let limit = limit.map_err(|error| Failure::io("the descriptor limit", &error))?;
    let vanish = task
        .scenario
        .presence
        .is_some_and(|presence| presence.end == End::Vanish);
    let needed = devices + spare + if vanish { DESCRIPTORS_LEFT } else { 0 };
    if needed > limit {
        let text = format!(
            "{devices} devices need {needed} descriptors, the limit is {limit}: raise it (ulimit -n), take \
             fewer --users, or split them over several --processes"
        );
        return Err(Failure::new(Exit::Config, text));
    }
    Ok(())
}
