//! `stonechat swarm`: finds the server, makes users, runs the scenario, prints what came of it. What
//! the users do and how it is judged is `stonechat-swarm`'s business.

use std::net::{SocketAddr, ToSocketAddrs};
use std::time::{SystemTime, UNIX_EPOCH};

use stonechat_gateway::admin::Secret;
use stonechat_swarm::{Admin, Outcome, READY, Scenario, ScenarioError, SwarmError, Target};

use crate::cli::{ConfigArgs, SwarmArgs, SwarmCommand};
use crate::commands::print;
use crate::config::Settings;
use crate::exit::{Exit, Failure};
use crate::node_file::{self, NodeFile};

/// What simulated devices are called.
const DEVICE: &str = "swarm";
/// Descriptors for everything but the users' sockets: sockets left behind above all.
const DESCRIPTORS_SPARE: u64 = 1_200;

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
        SwarmCommand::Run(swarm) => load(args, &swarm),
    }
}

fn load(args: &ConfigArgs, swarm: &SwarmArgs) -> Result<(), Failure> {
    let mut scenario = Scenario::load(&swarm.scenario)?;
    scenario.users = swarm.users.unwrap_or(scenario.users);
    scenario.duration_s = swarm.duration.unwrap_or(scenario.duration_s);
    scenario.seed = swarm.seed.unwrap_or(scenario.seed);
    scenario.check(&swarm.scenario)?;
    let settings = args.load(Vec::new())?.settings;
    let node = NodeFile::read(settings.data_dir());
    let server = server(swarm, &settings, node.as_ref())?;
    let admin = admin(swarm, args, &settings, node.as_ref())?;
    descriptors(scenario.devices_total())?;

    // Users of their own for every run, so that nothing of an earlier one waits for them.
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let prefix = format!("swarm{:x}-", now.map_or(0, |now| now.as_millis()));
    let users = scenario.users as usize;
    eprintln!("creating {users} users, {prefix}0 and so on");
    let roster = admin.create((&prefix, DEVICE), users, users)?;
    let roster = roster.devices(scenario.devices);
    let summary = stonechat_swarm::run(&scenario, roster, Target::new(server), &mut |progress| {
        eprintln!("{progress}");
    })?;
    if swarm.json {
        let json = serde_json::to_string_pretty(&summary).expect("figures are plain data");
        print(json + "\n")?;
    } else {
        print(&summary)?;
    }
    let clean = summary.verdict.outcome == Outcome::Clean;
    if clean && !swarm.keep_users {
        admin.remove(&prefix, users)?;
    }
    match summary.verdict.outcome {
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

/// Where to connect.
fn server(
    swarm: &SwarmArgs,
    settings: &Settings,
    node: Option<&NodeFile>,
) -> Result<SocketAddr, Failure> {
    let url = swarm.url.clone().unwrap_or_else(|| {
        node.map_or_else(
            || node_file::client_url(settings.server.listen, settings.server.tls_cert.is_some()),
            NodeFile::client_url,
        )
    });
    let Some(address) = url.strip_prefix("ws://") else {
        let text = format!("{url}: a swarm speaks ws:// only; point it at a listener without TLS");
        return Err(Failure::new(Exit::Config, text));
    };
    let address = address.split('/').next().unwrap_or_default();
    let found = address.to_socket_addrs().map(|mut found| found.next());
    match found {
        Ok(Some(found)) => Ok(found),
        _ => Err(Failure::new(
            Exit::Config,
            format!("{url}: there is no such address; expected ws://HOST:PORT"),
        )),
    }
}

fn admin(
    swarm: &SwarmArgs,
    args: &ConfigArgs,
    settings: &Settings,
    node: Option<&NodeFile>,
) -> Result<Admin, Failure> {
    let base = swarm.admin.clone().unwrap_or_else(|| {
        let running = args.admin_listen.or(node.map(|node| node.admin_listen));
        let address = node_file::reachable(running.unwrap_or(settings.admin.listen));
        format!("http://{address}")
    });
    let secret = match &swarm.admin_secret {
        Some(secret) => secret.clone(),
        None => Secret::load(settings.data_dir())
            .map_err(|error| {
                let failure = Failure::from(error);
                let hint =
                    "give it by STONECHAT_ADMIN_SECRET, or the --data-dir of a running server";
                Failure::new(failure.exit(), format!("{failure}; {hint}"))
            })?
            .expose()
            .to_owned(),
    };
    let base = base.trim_end_matches('/').trim_end_matches("/admin/v1");
    Ok(Admin {
        base: format!("{base}/admin/v1"),
        bearer: format!("Bearer {}", secret.trim()),
    })
}

/// Every device is a socket.
fn descriptors(devices: u64) -> Result<(), Failure> {
    let limit = rlimit::increase_nofile_limit(u64::MAX);
    let limit = limit.map_err(|error| Failure::io("the descriptor limit", &error))?;
    if devices + DESCRIPTORS_SPARE > limit {
        let text = format!(
            "{devices} devices need {} descriptors, the limit is {limit}: raise it (ulimit -n), or \
             take fewer --users",
            devices + DESCRIPTORS_SPARE
        );
        return Err(Failure::new(Exit::Config, text));
    }
    Ok(())
}
