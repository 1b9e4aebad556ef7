//! What a message costs: this crate beside plain actix, in one run, on one arbiter.
//!
//! `cargo run --release -p stonechat-actors --example throughput [MESSAGES]`
//!
//! Two shapes. *Flood*: a sender fills the inbox and lets the actor work it off. *Ping-pong*: two actors
//! send one message back and forth, so each message pays a wake-up as well.

#![allow(
    clippy::disallowed_methods,
    reason = "plain actix is what this compares with"
)]

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use stonechat_actors::{ActorRef, Ask, ChildSpec, Ctx, Handle, Supervised, Tree, TreeConfig};
use tokio::sync::oneshot;

const BATCH: u64 = 1000;
const ROUNDS: usize = 5;

struct Add(u64);
struct Sum;
struct Ball(u64, Option<oneshot::Sender<()>>);

mod ours {
    use super::{ActorRef, Add, Ask, Ball, Ctx, Handle, Sum, Supervised, black_box};

    pub(super) struct Adder(pub(super) u64);
    impl Supervised for Adder {
        const KIND: &'static str = "adder";
    }
    impl Handle<Add> for Adder {
        fn handle(&mut self, Add(n): Add, _ctx: &mut Ctx<Self>) {
            self.0 = black_box(self.0 + n);
        }
    }
    impl Ask<Sum> for Adder {
        type Reply = u64;
        fn ask(&mut self, _: Sum, _ctx: &mut Ctx<Self>) -> u64 {
            self.0
        }
    }

    pub(super) struct Player(pub(super) Option<ActorRef<Player>>);
    pub(super) struct Meet(pub(super) ActorRef<Player>);
    impl Supervised for Player {
        const KIND: &'static str = "player";
    }
    impl Handle<Meet> for Player {
        fn handle(&mut self, Meet(other): Meet, _ctx: &mut Ctx<Self>) {
            self.0 = Some(other);
        }
    }
    impl Handle<Ball> for Player {
        fn handle(&mut self, Ball(left, done): Ball, _ctx: &mut Ctx<Self>) {
            if left == 0 {
                done.map(|done| done.send(()));
            } else if let Some(other) = &self.0 {
                let _ = other.try_tell(Ball(left - 1, done));
            }
        }
    }
}

mod plain {
    use actix::{Actor, Addr, Context, Handler, Message};

    use super::{Add, Ball, Sum, black_box};

    impl Message for Add {
        type Result = ();
    }
    impl Message for Sum {
        type Result = u64;
    }
    impl Message for Ball {
        type Result = ();
    }

    pub(super) struct Adder(pub(super) u64);
    impl Actor for Adder {
        type Context = Context<Self>;
        fn started(&mut self, ctx: &mut Self::Context) {
            ctx.set_mailbox_capacity(2048);
        }
    }
    impl Handler<Add> for Adder {
        type Result = ();
        fn handle(&mut self, Add(n): Add, _ctx: &mut Self::Context) {
            self.0 = black_box(self.0 + n);
        }
    }
    impl Handler<Sum> for Adder {
        type Result = u64;
        fn handle(&mut self, _: Sum, _ctx: &mut Self::Context) -> u64 {
            self.0
        }
    }

    pub(super) struct Player(pub(super) Option<Addr<Player>>);
    pub(super) struct Meet(pub(super) Addr<Player>);
    impl Message for Meet {
        type Result = ();
    }
    impl Actor for Player {
        type Context = Context<Self>;
    }
    impl Handler<Meet> for Player {
        type Result = ();
        fn handle(&mut self, Meet(other): Meet, _ctx: &mut Self::Context) {
            self.0 = Some(other);
        }
    }
    impl Handler<Ball> for Player {
        type Result = ();
        fn handle(&mut self, Ball(left, done): Ball, _ctx: &mut Self::Context) {
            if left == 0 {
                done.map(|done| done.send(()));
            } else if let Some(other) = &self.0 {
                let _ = other.try_send(Ball(left - 1, done));
            }
        }
    }
}

fn ns_each(began: Instant, messages: u64) -> u64 {
    u64::try_from(began.elapsed().as_nanos() / u128::from(messages)).unwrap_or(u64::MAX)
}

fn median(mut runs: Vec<u64>) -> u64 {
    runs.sort_unstable();
    runs[runs.len() / 2]
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let messages = std::env::args()
        .nth(1)
        .map_or(Ok(1_000_000), |text| text.parse::<u64>())?;
    let messages = messages.max(BATCH);
    actix_rt::System::new().block_on(async {
        let tree = Tree::new(TreeConfig::default());
        let here = actix_rt::Arbiter::current();
        let soon = Duration::from_secs(60);
        let adder = tree
            .root()
            .start_child(ChildSpec::new("adder"), &here, |_| ours::Adder(0))?;
        let plain_adder = actix::Actor::start(plain::Adder(0));
        let [a, b] = ["a", "b"].map(|name| {
            tree.root()
                .start_child(ChildSpec::new(name), &here, |_| ours::Player(None))
        });
        let (a, b) = (a?, b?);
        a.try_tell(ours::Meet(b.clone()))?;
        b.try_tell(ours::Meet(a.clone()))?;
        let (plain_a, plain_b) = (
            actix::Actor::start(plain::Player(None)),
            actix::Actor::start(plain::Player(None)),
        );
        plain_a.send(plain::Meet(plain_b.clone())).await?;
        plain_b.send(plain::Meet(plain_a.clone())).await?;

        let mut figures = [const { Vec::new() }; 4];
        for _ in 0..ROUNDS {
            let began = Instant::now();
            for _ in 0..messages / BATCH {
                for _ in 0..BATCH {
                    adder.try_tell(Add(1))?;
                }
                adder.ask(Sum, soon).await?;
            }
            figures[0].push(ns_each(began, messages));

            let began = Instant::now();
            for _ in 0..messages / BATCH {
                for _ in 0..BATCH {
                    plain_adder.try_send(Add(1)).map_err(|_| "full")?;
                }
                plain_adder.send(Sum).await?;
            }
            figures[1].push(ns_each(began, messages));

            let (done, over) = oneshot::channel();
            let began = Instant::now();
            a.try_tell(Ball(messages, Some(done)))?;
            over.await?;
            figures[2].push(ns_each(began, messages));

            let (done, over) = oneshot::channel();
            let began = Instant::now();
            plain_a
                .try_send(Ball(messages, Some(done)))
                .map_err(|_| "full")?;
            over.await?;
            figures[3].push(ns_each(began, messages));
        }
        let [flood, plain_flood, pong, plain_pong] = figures.map(median);
        println!("ns a message, median of {ROUNDS} runs of {messages}");
        println!("              supervised   plain actix");
        println!("flood         {flood:>10}   {plain_flood:>11}");
        println!("ping-pong     {pong:>10}   {plain_pong:>11}");
        tree.shutdown(soon).await;
        Ok(())
    })
}
