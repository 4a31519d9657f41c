// Scenarios with kafkajs: `node kafkajs.js BOOTSTRAP SCENARIO`.
const assert = require("node:assert");
const { randomUUID } = require("node:crypto");
const { CompressionCodecs, CompressionTypes, Kafka, logLevel } = require("kafkajs");

CompressionCodecs[CompressionTypes.Snappy] = require("kafkajs-snappy");

const [bootstrap, scenario] = process.argv.slice(2);
const kafka = new Kafka({ clientId: "e2e", brokers: [bootstrap], logLevel: logLevel.NOTHING });

async function create(numPartitions) {
  const topic = `kafkajs-${randomUUID()}`;
  const admin = kafka.admin();
  await admin.connect();
  assert(await admin.createTopics({ topics: [{ topic, numPartitions }] }));
  await admin.disconnect();
  return topic;
}

function records(count, salt) {
  return Array.from({ length: count }, (_, at) => ({
    key: at % 7 ? `key-${at % 13}` : null,
    value: at % 11 === 5 && at % 7 ? null : `${salt} ${at} `.repeat(1 + (at % 40)),
    headers: at % 3 ? {} : { trace: String(at) },
    timestamp: String(1700000000000 + at),
  }));
}

const text = (bytes) => (bytes === null ? null : bytes.toString());

function plain({ key, value, headers, timestamp }) {
  const entries = Object.entries(headers).map(([name, of]) => [name, of.toString()]);
  return { key: text(key), value: text(value), headers: Object.fromEntries(entries), timestamp };
}

async function send(topic, partition, messages, compression, idempotent) {
  const producer = kafka.producer({ idempotent, maxInFlightRequests: 1 });
  await producer.connect();
  const sent = messages.map((of) => ({ ...of, partition }));
  await producer.send({ topic, messages: sent, compression, acks: -1 });
  await producer.disconnect();
}

// A member of a group, and all that it was given: `places` by partition/offset.
async function member(topic, groupId, places) {
  const consumer = kafka.consumer({ groupId, sessionTimeout: 6000, heartbeatInterval: 300 });
  await consumer.connect();
  await consumer.subscribe({ topic, fromBeginning: true });
  await consumer.run({
    eachMessage: async ({ partition, message }) => {
      places.set(`${partition}/${message.offset}`, plain(message));
    },
  });
  return consumer;
}

async function until(condition, what) {
  for (let tries = 0; tries < 400; tries += 1) {
    if (await condition()) return;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  assert.fail(`not within 40 s: ${what}`);
}

// Every compression that this client has, idempotent and not.
async function roundTrip() {
  const types = [CompressionTypes.None, CompressionTypes.GZIP, CompressionTypes.Snappy];
  const topic = await create(1);
  const expected = [];
  for (const compression of types) {
    for (const idempotent of [false, true]) {
      const batch = records(200, `${compression}${idempotent}`);
      await send(topic, 0, batch, compression, idempotent);
      expected.push(...batch);
    }
  }
  const places = new Map();
  const consumer = await member(topic, `group-${randomUUID()}`, places);
  await until(() => places.size === expected.length, `${expected.length} records`);
  expected.forEach((of, at) => assert.deepStrictEqual(places.get(`0/${at}`), of));
  await consumer.disconnect();
}

// Two members share a topic; one leaves, the other takes its part over.
async function group() {
  const [topic, groupId] = [await create(4), `group-${randomUUID()}`];
  const [one, two] = [new Map(), new Map()];
  const first = await member(topic, groupId, one);
  const second = await member(topic, groupId, two);
  const admin = kafka.admin();
  await admin.connect();
  const described = async () => (await admin.describeGroups([groupId])).groups[0];
  await until(async () => {
    const { state, members } = await described();
    return state === "Stable" && members.length === 2;
  }, "both members are there");
  for (let at = 0; at < 4; at += 1) await send(topic, at, records(25, "one"), 0, false);
  await until(() => one.size + two.size === 100, "the first round");
  assert(one.size === 50 && two.size === 50, `shares are ${one.size} and ${two.size}`);
  await second.disconnect();
  for (let at = 0; at < 4; at += 1) await send(topic, at, records(25, "two"), 0, false);
  await until(() => one.size === 150, "the second round");
  await first.disconnect();
  const offsets = await admin.fetchOffsets({ groupId, topics: [topic] });
  for (const { offset } of offsets[0].partitions) assert.strictEqual(offset, "50");
  await admin.deleteGroups([groupId]);
  await admin.disconnect();
}

({ round_trip: roundTrip, group })[scenario]().then(
  () => process.exit(0),
  (error) => {
    console.error(error);
    process.exit(1);
  },
);
