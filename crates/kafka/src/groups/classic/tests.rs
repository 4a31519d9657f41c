//! The rules of classic groups, one by one, and all of them under churn.

mod churn;
mod rules;

use bytes::Bytes;

use super::{Asker, Join, Limits, Ms, Protocol};

const LIMITS: Limits =
    Limits { session_ms_min: 10, session_ms_max: 1_000, members_max: 8, initial_delay_ms: 0 };

fn asker(member: &str) -> Asker {
    Asker { member: member.into(), instance: None }
}

fn join(member: &str, session_ms: Ms, protocols: &[&str]) -> Join {
    Join {
        member: asker(member),
        fresh_id: "fresh".into(),
        client_id: "client".into(),
        client_host: "/127.0.0.1".into(),
        session_ms,
        rebalance_ms: 300,
        protocol_type: "consumer".into(),
        protocols: protocols
            .iter()
            .map(|name| Protocol { name: (*name).to_owned(), metadata: Bytes::new() })
            .collect(),
        takes_id_first: false,
        skips_assignment: false,
    }
}
