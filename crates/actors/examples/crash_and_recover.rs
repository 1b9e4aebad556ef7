//! A supervised actor crashes, its inbox and its handle survive, and a bad one is given up without
//! disturbing anybody.
//!
//! `cargo run -p stonechat-actors --example crash_and_recover`

use std::time::Duration;

use stonechat_actors::{
    Ask, AskError, ChildSpec, Ctx, Down, Handle, Restart, StartInfo, Strategy, Supervised, TellTo,
    Tree, TreeConfig,
};

/// Counts what it is given. What must survive a crash would come from a store, in the factory.
struct Counter {
    name: &'static str,
    total: u64,
}

struct Add(u64);
struct Total;

impl Supervised for Counter {
    const KIND: &'static str = "counter";

    fn started(&mut self, ctx: &mut Ctx<Self>) {
        match ctx.last_exit() {
            None => println!("{}: generation {}", self.name, ctx.generation()),
            Some(reason) => println!(
                "{}: generation {}, because it {reason}",
                self.name,
                ctx.generation()
            ),
        }
    }

    fn snapshot(&self) -> serde_json::Value {
        serde_json::json!({ "total": self.total })
    }
}

impl Handle<Add> for Counter {
    fn handle(&mut self, Add(n): Add, _ctx: &mut Ctx<Self>) {
        assert!(n != 13, "13 is unlucky");
        self.total += n;
    }
}

impl Ask<Total> for Counter {
    type Reply = u64;
    fn ask(&mut self, _: Total, _ctx: &mut Ctx<Self>) -> u64 {
        self.total
    }
}

impl Ask<Add> for Counter {
    type Reply = u64;
    fn ask(&mut self, add: Add, ctx: &mut Ctx<Self>) -> u64 {
        self.handle(add, ctx);
        self.total
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    tracing_subscriber::fmt()
        .with_target(false)
        .without_time()
        .init();
    actix_rt::System::new().block_on(async {
        let second = Duration::from_secs(1);
        let tree = Tree::new(TreeConfig::default());
        let arbiter = actix_rt::Arbiter::new();
        let counters = tree.supervisor(&tree.root(), "counters", Strategy::OneForOne)?;
        let factory = |name| move |_info: &StartInfo| Counter { name, total: 0 };

        println!("-- a crash: the messages behind it are handled by the next generation");
        let good =
            counters.start_child(ChildSpec::new("good"), &arbiter.handle(), factory("good"))?;
        for n in [1, 2, 13, 4, 5] {
            good.tell(Add(n), second).await?;
        }
        println!(
            "good: total {} (4 + 5: what came before the crash went with it)",
            good.ask(Total, second).await?
        );

        println!("-- whoever asks learns what went wrong");
        if let Err(AskError::Panicked(reason)) = good.ask(Add(13), second).await {
            println!("the answer: it {reason}");
        }

        println!(
            "-- one that crashes too often is given up, alone, and whoever monitors it is told"
        );
        let spec = ChildSpec::new("bad")
            .restart(Restart::Transient)
            .intensity(2, second * 60)
            .escalate(false);
        let bad = counters.start_child(spec, &arbiter.handle(), factory("bad"))?;
        bad.monitor(TellTo::from_fn(|down: Down| {
            println!("monitor: {} {}", down.name, down.reason);
            Ok(())
        }))?;
        for _ in 0..3 {
            bad.tell(Add(13), second).await?;
        }
        bad.ended().await;

        println!("-- the tree, as an admin sees it");
        for node in tree.snapshot() {
            println!(
                "{:>2} {:<10} {:<10} generation {} restarts {} handled {}",
                node.id, node.name, node.kind, node.generation, node.restarts, node.handled_total
            );
        }
        println!("state of good: {}", tree.inspect(good.id(), second).await?);
        println!("totals: {:?}", tree.totals());
        let report = tree.shutdown(second * 5).await;
        println!(
            "shut down: {} stopped, {} abandoned",
            report.stopped, report.abandoned_total
        );
        Ok(())
    })
}
