//! The black-box suites, one module a topic, in one program so that they share the build of the
//! server and run beside each other. Each test has a node of its own in a temporary directory.

mod admin;
mod admin_tls;
mod backup;
mod chaos;
mod chat;
mod cli;
mod codes;
mod dead_letters;
mod descriptors;
mod devices;
mod drain;
mod durability;
mod ephemeral;
mod frames;
mod framing;
mod heartbeat;
mod limits;
mod offline;
mod receipts;
mod resend;
mod resume;
mod sign_in;
mod slow_reader;
mod soak;
mod storage;
mod swarm;
mod swarm_run;
mod tls;
mod tokens;
mod traces;
mod ttl;
mod upgrade;
