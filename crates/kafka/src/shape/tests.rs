//! Shapes held against the codec: what is made to a shape is decoded to the
//! last byte and encoded to the same bytes, in every version.

use aquifer_testkit::rand::RngExt as _;
use aquifer_testkit::rand::rngs::StdRng;
use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::*;
use kafka_protocol::protocol::{Decodable, Encodable, Request, VersionRange};

use super::*;

const ELEMENTS_MAX: usize = 10_000;

/// One API: its versions, and its request decoded and encoded again.
struct Codec {
    api: ApiKey,
    versions: VersionRange,
    again: fn(i16, &[u8]) -> Result<Vec<u8>, String>,
}

fn codec<R: Request>() -> Codec {
    let api = ApiKey::try_from(R::KEY).unwrap();
    Codec { api, versions: R::VERSIONS, again: again::<R> }
}

fn again<T: Decodable + Encodable>(version: i16, bytes: &[u8]) -> Result<Vec<u8>, String> {
    let mut bytes = Bytes::copy_from_slice(bytes);
    let value = T::decode(&mut bytes, version).map_err(|error| error.to_string())?;
    let mut encoded = BytesMut::new();
    value.encode(&mut encoded, version).map_err(|error| error.to_string())?;
    Ok(encoded.to_vec())
}

macro_rules! codecs {
    ($($request:ident)*) => { vec![$(codec::<$request>()),*] };
}

fn codecs() -> Vec<Codec> {
    codecs! {
        ElectLeadersRequest AlterPartitionReassignmentsRequest
        ListPartitionReassignmentsRequest AlterReplicaLogDirsRequest ListConfigResourcesRequest
        ProduceRequest FetchRequest ListOffsetsRequest MetadataRequest OffsetCommitRequest
        OffsetFetchRequest FindCoordinatorRequest JoinGroupRequest HeartbeatRequest
        LeaveGroupRequest SyncGroupRequest DescribeGroupsRequest ListGroupsRequest
        SaslHandshakeRequest ApiVersionsRequest CreateTopicsRequest DeleteTopicsRequest
        DeleteRecordsRequest InitProducerIdRequest OffsetForLeaderEpochRequest
        AddPartitionsToTxnRequest AddOffsetsToTxnRequest EndTxnRequest TxnOffsetCommitRequest
        DescribeAclsRequest CreateAclsRequest DeleteAclsRequest DescribeConfigsRequest
        AlterConfigsRequest DescribeLogDirsRequest SaslAuthenticateRequest CreatePartitionsRequest
        DeleteGroupsRequest IncrementalAlterConfigsRequest OffsetDeleteRequest
        DescribeClientQuotasRequest AlterClientQuotasRequest DescribeUserScramCredentialsRequest
        AlterUserScramCredentialsRequest DescribeClusterRequest DescribeProducersRequest
        DescribeTransactionsRequest ListTransactionsRequest ConsumerGroupHeartbeatRequest
        ConsumerGroupDescribeRequest DescribeTopicPartitionsRequest ShareGroupHeartbeatRequest
        ShareGroupDescribeRequest ShareFetchRequest ShareAcknowledgeRequest
        DescribeShareGroupOffsetsRequest AlterShareGroupOffsetsRequest
        DeleteShareGroupOffsetsRequest
    }
}

/// Writes bytes to a shape.
struct Maker<'a> {
    random: &'a mut StdRng,
    version: i16,
    is_flexible: bool,
    bytes: Vec<u8>,
    elements: usize,
}

impl Maker<'_> {
    fn structure(&mut self, fields: &[Field]) {
        let version = self.version;
        for field in fields.iter().filter(|of| of.tag.is_none() && of.is_in(version)) {
            self.field(field);
        }
        if self.is_flexible {
            self.tagged(fields);
        }
    }

    fn field(&mut self, field: &Field) {
        match field.kind {
            // A flag that is set; numbers that are no default.
            Kind::Fixed(1) => self.bytes.push(1),
            Kind::Fixed(length) => {
                let value = (0..length).map(|_| self.random.random_range(1..=u8::MAX));
                self.bytes.extend(value.collect::<Vec<_>>());
            }
            Kind::Text | Kind::Blob => {
                let text = "text".repeat(self.random.random_range(1..60));
                self.length(text.len(), matches!(field.kind, Kind::Text));
                self.bytes.extend(text.as_bytes());
            }
            Kind::List(fields) => {
                let count = self.random.random_range(1..4);
                self.length(count, false);
                self.elements += count;
                (0..count).for_each(|_| self.structure(fields));
            }
            Kind::Values(of) => {
                let count = self.random.random_range(1..4);
                self.length(count, false);
                self.elements += count;
                (0..count).for_each(|_| self.field(of));
            }
            Kind::Structure(fields) => self.structure(fields),
            Kind::Optional(fields) => {
                self.bytes.push(1);
                self.structure(fields);
            }
        }
    }

    fn length(&mut self, length: usize, is_short: bool) {
        if self.is_flexible {
            self.varint(u32::try_from(length).unwrap() + 1);
        } else if is_short {
            self.bytes.extend(i16::try_from(length).unwrap().to_be_bytes());
        } else {
            self.bytes.extend(i32::try_from(length).unwrap().to_be_bytes());
        }
    }

    /// All that are known, and one that is not.
    fn tagged(&mut self, fields: &[Field]) {
        let mut known: Vec<&Field> =
            fields.iter().filter(|of| of.tag.is_some() && of.is_in(self.version)).collect();
        known.sort_by_key(|of| of.tag);
        self.varint(u32::try_from(known.len()).unwrap() + 1);
        self.elements += known.len() + 1;
        for field in known {
            self.varint(field.tag.unwrap());
            let outer = std::mem::take(&mut self.bytes);
            self.field(field);
            let inner = std::mem::replace(&mut self.bytes, outer);
            self.varint(u32::try_from(inner.len()).unwrap());
            self.bytes.extend(inner);
        }
        self.varint(1000);
        self.varint(3);
        self.bytes.extend(b"new");
    }

    fn varint(&mut self, mut value: u32) {
        while value >= 0x80 {
            self.bytes.push((value & 0x7f) as u8 | 0x80);
            value >>= 7;
        }
        self.bytes.push(value as u8);
    }
}

fn make(random: &mut StdRng, api: ApiKey, version: i16) -> (Vec<u8>, usize) {
    let shape = find(api).unwrap();
    let is_flexible = version >= shape.flexible;
    let mut maker = Maker { random, version, is_flexible, bytes: Vec::new(), elements: 0 };
    maker.structure(shape.fields);
    (maker.bytes, maker.elements)
}

#[test]
fn shapes_are_those_of_the_codec_in_every_version() {
    let mut random = aquifer_testkit::rng_from_env();
    let mut versions = 0;
    for codec in codecs() {
        for version in codec.versions.min..=codec.versions.max {
            for _ in 0..10 {
                let (bytes, elements) = make(&mut random, codec.api, version);
                let what = format!("{:?} {version}: {bytes:02x?}", codec.api);
                assert_eq!((codec.again)(version, &bytes), Ok(bytes.clone()), "{what}");
                assert_eq!(check(codec.api, version, &bytes, ELEMENTS_MAX), Ok(elements), "{what}");
                let fewer = check(codec.api, version, &bytes, elements.saturating_sub(1));
                assert_eq!(fewer.is_err(), elements > 0, "{what}");
                let longer = [&bytes[..], &[0]].concat();
                let longer = check(codec.api, version, &longer, ELEMENTS_MAX);
                assert_eq!(longer, Ok(elements), "{what}");
                for end in 0..bytes.len() {
                    assert!(check(codec.api, version, &bytes[..end], ELEMENTS_MAX).is_err());
                }
            }
            versions += 1;
        }
    }
    assert!(versions > 200, "{versions}");
}

#[test]
fn every_api_that_is_served_has_a_shape() {
    for api in crate::api::APIS {
        assert!(find(api.key).is_some(), "{:?}", api.key);
        let codecs = codecs();
        let codec = codecs.iter().find(|codec| codec.api == api.key).unwrap();
        let max = crate::api::codec_version(api.key, api.max);
        assert!(max <= codec.versions.max, "{:?}", api.key);
    }
}

#[test]
fn lies_about_lengths_are_refused_by_name() {
    let check = |api, version, body: &[u8], expected| {
        assert_eq!(check(api, version, body, 10), Err(expected), "{body:02x?}");
    };
    let all = i32::MAX.to_be_bytes();
    check(ApiKey::Metadata, 0, &all, ShapeError::Count { count: i32::MAX.into(), left: 0 });
    check(ApiKey::Metadata, 0, &(-2_i32).to_be_bytes(), ShapeError::Count { count: -2, left: 0 });
    check(ApiKey::Metadata, 9, &[0xff; 5], ShapeError::Number);
    check(ApiKey::Metadata, 9, &[0xff; 9], ShapeError::Number);
    let many = [&11_i32.to_be_bytes()[..], &[0; 22]].concat();
    check(ApiKey::Metadata, 0, &many, ShapeError::Elements { max: 10 });
    check(
        ApiKey::Metadata,
        0,
        &[0, 0, 0, 1, 0x7f, 0xff],
        ShapeError::Short { length: 0x7fff, left: 0 },
    );
    check(ApiKey::Metadata, 0, &[0, 0, 0, 1, 0xff, 0xfe], ShapeError::Length(-2));
    // ApiVersions 3: two texts, tagged fields.
    check(ApiKey::ApiVersions, 3, &[1, 1, 2, 7, 0, 7, 0], ShapeError::Order(7));
    check(ApiKey::ApiVersions, 3, &[1, 1, 0x80, 0x80, 0x80, 0x80, 8], {
        ShapeError::Short { length: 1, left: 0 }
    });
    check(ApiKey::DescribeTopicPartitions, 0, &[1, 0, 0, 0, 9, 127], ShapeError::Presence(127));
    // A known tag that is longer than it says, which a codec would not see.
    let body = [&[0; 18][..], &[1, 1, 1, 1, 0, 3, b'a', b'b', 0]].concat();
    let fetch = super::check(ApiKey::Fetch, 12, &body, 10);
    assert!(fetch.is_err(), "{fetch:?}");
}

#[test]
fn headers_are_walked_too() {
    let fixed = [0, 3, 0, 9, 0, 0, 0, 1];
    let check = |version, rest: &[u8], expected| {
        let bytes = [&fixed[..], rest].concat();
        assert_eq!(header(&bytes, version, 2), expected, "{rest:02x?}");
    };
    check(1, &[0, 1, b'a', 9, 9], Ok(()));
    check(1, &[0xff, 0xff], Ok(()));
    check(1, &[0, 9, b'a'], Err(ShapeError::Short { length: 9, left: 1 }));
    check(2, &[0xff, 0xff, 0, 9], Ok(()));
    check(2, &[0xff, 0xff, 2, 0, 0, 1, 1, 7, 9], Ok(()));
    check(2, &[0xff, 0xff, 3, 0, 0, 1, 0, 2, 0], Err(ShapeError::Elements { max: 2 }));
    assert!(header(&fixed[..7], 1, 2).is_err());
}

/// The decoder over whatever the walk lets through.
#[test]
fn fuzz_kafka_requests() {
    let mut random = aquifer_testkit::rng_from_env();
    let codecs = codecs();
    let mut corpus = Vec::new();
    for codec in &codecs {
        for version in codec.versions.min..=codec.versions.max {
            let (bytes, _) = make(&mut random, codec.api, version);
            let start = [codec.api as i16, version].map(i16::to_be_bytes).concat();
            corpus.push([start, bytes].concat());
        }
    }
    aquifer_testkit::fuzz("kafka_requests", 0.3, &corpus, |input| {
        let Some((&[k0, k1, v0, v1], body)) = input.split_first_chunk::<4>() else { return };
        let (key, version) = (i16::from_be_bytes([k0, k1]), i16::from_be_bytes([v0, v1]));
        let Some(codec) = codecs.iter().find(|codec| codec.api as i16 == key) else { return };
        if !(codec.versions.min..=codec.versions.max).contains(&version) {
            return;
        }
        if check(codec.api, version, body, ELEMENTS_MAX).is_ok() {
            // May fail at a text or a null, but never at a length.
            if let Err(why) = (codec.again)(version, body) {
                assert!(!why.contains("Not enough"), "{why}");
            }
        }
    });
}

#[test]
fn fuzz_kafka_headers() {
    let header_of = |version: i16, tail: &[u8]| {
        let start = [version.to_be_bytes(), [0, 3], [0, 9], [0, 0], [0, 1]].concat();
        [&start[..], tail].concat()
    };
    let corpus = [
        header_of(1, &[0, 1, b'a']),
        header_of(2, &[0, 2, b'a', b'b', 2, 0, 1, 9, 200, 1, 0]),
        header_of(2, &[0xff, 0xff, 0]),
    ];
    aquifer_testkit::fuzz("kafka_headers", 0.2, &corpus, |input| {
        let Some((version, bytes)) = input.split_first_chunk::<2>() else { return };
        let version = i16::from_be_bytes(*version);
        if (1..=2).contains(&version) && header(bytes, version, 100).is_ok() {
            let decoded = RequestHeader::decode(&mut Bytes::copy_from_slice(bytes), version);
            if let Err(error) = decoded {
                assert!(!error.to_string().contains("Not enough"), "{error}");
            }
        }
    });
}
