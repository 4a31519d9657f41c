//! Messages of Flight that `arrow-flight` does not have.

/// The end of a session (Flight.proto, `CloseSessionResult`).
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct CloseSessionResult {
    #[prost(enumeration = "CloseSessionStatus", tag = "1")]
    pub(crate) status: i32,
}

/// How it went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub(crate) enum CloseSessionStatus {
    Unspecified = 0,
    Closed = 1,
    Closing = 2,
    NotCloseable = 3,
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;

    #[test]
    fn the_wire_is_that_of_flight() {
        let result = CloseSessionResult { status: CloseSessionStatus::Closed.into() };
        assert_eq!(result.encode_to_vec(), [8, 1]);
    }
}
