//! What an idle actor costs in memory, and a restart in time: this crate beside plain actix.
//!
//! `cargo run --release -p stonechat-actors --example memory [ACTORS]` (Linux: reads `/proc/self/statm`)

use std::time::{Duration, Instant};

use stonechat_actors::{
    Ask, Backoff, ChildSpec, Ctx, Handle, RESTARTS_MAX, Strategy, Supervised, Tree, TreeConfig,
};

/// 64 bytes of its own, like a small session.
struct Idle([u64; 8]);

struct Hello;
struct Boom;

impl Supervised for Idle {
    const KIND: &'static str = "idle";
}

impl Handle<Boom> for Idle {
    fn handle(&mut self, _: Boom, _ctx: &mut Ctx<Self>) {
        panic!("on purpose");
    }
}

impl Ask<Hello> for Idle {
    type Reply = u64;
    fn ask(&mut self, _: Hello, _ctx: &mut Ctx<Self>) -> u64 {
        self.0[0] += 1;
        self.0.iter().sum()
    }
}

struct Plain([u64; 8]);

impl actix::Actor for Plain {
    type Context = actix::Context<Self>;
}

impl actix::Message for Hello {
    type Result = u64;
}

impl actix::Handler<Hello> for Plain {
    type Result = u64;
    fn handle(&mut self, _: Hello, _ctx: &mut Self::Context) -> u64 {
        self.0[0] += 1;
        self.0.iter().sum()
    }
}

fn rss_bytes() -> Result<u64, Box<dyn std::error::Error>> {
    let statm = std::fs::read_to_string("/proc/self/statm")?;
    let pages: u64 = statm
        .split(' ')
        .nth(1)
        .ok_or("no resident field")?
        .parse()?;
    Ok(pages * 4096)
}

#[allow(
    clippy::disallowed_methods,
    reason = "plain actix is what this compares with"
)]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let actors = std::env::args()
        .nth(1)
        .map_or(Ok(100_000), |text| text.parse::<u64>())?
        .max(1000);
    actix_rt::System::new().block_on(async {
        let tree = Tree::new(TreeConfig {
            alarm_panics_max: usize::MAX,
            ..TreeConfig::default()
        });
        let here = actix_rt::Arbiter::current();
        let soon = Duration::from_secs(60);
        let sessions = tree.supervisor(&tree.root(), "sessions", Strategy::Dynamic)?;
        let spec = |n: u64| ChildSpec::new(format!("user{n:06}")).escalate(false);

        // Warm the allocator and the queues up first, and give the memory back.
        for n in 0..1000 {
            let actor = sessions.start_child(spec(n), &here, |_| Idle([0; 8]))?;
            actor.ask(Hello, soon).await?;
            actor.stop(stonechat_actors::ExitReason::Shutdown);
            actor.ended().await;
        }
        let before = rss_bytes()?;
        let mut kept = Vec::with_capacity(usize::try_from(actors)?);
        let began = Instant::now();
        for n in 0..actors {
            let actor = sessions.start_child(spec(n), &here, |_| Idle([0; 8]))?;
            actor.ask(Hello, soon).await?;
            kept.push(actor);
        }
        let start_ns = began.elapsed().as_nanos() / u128::from(actors);
        let ours = (rss_bytes()? - before) / actors;

        let before = rss_bytes()?;
        let mut plain = Vec::with_capacity(usize::try_from(actors)?);
        for _ in 0..actors {
            let addr = actix::Actor::start(Plain([0; 8]));
            addr.send(Hello).await?;
            plain.push(addr);
        }
        let theirs = (rss_bytes()? - before) / actors;
        println!(
            "{actors} idle actors of 64 bytes, each has handled one question; handle included"
        );
        println!(
            "supervised   {ours:>5} bytes each ({} beyond its own value), started in {start_ns} ns",
            ours - 64
        );
        println!(
            "plain actix  {theirs:>5} bytes each ({} beyond its own value)",
            theirs - 64
        );

        let crashes = RESTARTS_MAX / 4;
        let spec = ChildSpec::new("crasher")
            .intensity(RESTARTS_MAX, Duration::from_secs(3600))
            .inbox_capacity(crashes)
            .backoff(Backoff {
                initial: Duration::ZERO,
                max: Duration::ZERO,
                reset_after: soon,
            });
        let crasher = tree.root().start_child(spec, &here, |_| Idle([0; 8]))?;
        for _ in 0..crashes {
            crasher.try_tell(Boom)?;
        }
        let began = Instant::now();
        crasher.tell(Boom, soon).await?;
        crasher.ask(Hello, soon).await?;
        let each_ns = began.elapsed().as_nanos() / u128::from(crashes);
        println!("a panic and the restart after it: {each_ns} ns ({crashes} in a row)");
        let began = Instant::now();
        let report = tree.shutdown(soon).await;
        println!(
            "shutdown of {} actors: {} ms",
            report.stopped,
            began.elapsed().as_millis()
        );
        Ok(())
    })
}
