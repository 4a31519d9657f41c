import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.UUID;
import java.util.concurrent.Future;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.MemberToRemove;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.RemoveMembersFromConsumerGroupOptions;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.SubscriptionPattern;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.quota.ClientQuotaAlteration;
import org.apache.kafka.common.quota.ClientQuotaEntity;
import org.apache.kafka.common.quota.ClientQuotaFilter;
import org.apache.kafka.common.quota.ClientQuotaFilterComponent;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;

/** Scenarios with Kafka's Java client: `java Scenarios BOOTSTRAP SCENARIO`. */
public final class Scenarios {
    private static final Duration WAIT = Duration.ofSeconds(30);
    private static String bootstrap;

    public static void main(String[] arguments) throws Exception {
        bootstrap = arguments[0];
        switch (arguments[1]) {
            case "round_trip" -> roundTrip();
            case "group" -> group(arguments[2]);
            case "consumer_group" -> consumerGroup();
            case "transactions" -> transactions();
            case "quotas" -> quotas();
            default -> throw new IllegalArgumentException(arguments[1]);
        }
    }

    /** Every compression, with the producer's defaults, which are idempotent. */
    private static void roundTrip() throws Exception {
        for (String compression : List.of("none", "gzip", "snappy", "lz4", "zstd")) {
            String topic = create(1);
            List<String> sent = values(1000, compression);
            try (var producer = producer(Map.of("compression.type", compression))) {
                send(producer, topic, 0, sent);
            }
            try (var consumer = consumer(Map.of())) {
                consumer.assign(List.of(new TopicPartition(topic, 0)));
                same(sent, take(consumer, sent.size()), compression);
            }
        }
    }

    /** Two members, one after the other: the second goes on where the first stopped. */
    private static void group(String protocol) throws Exception {
        String topic = create(2);
        String group = "group-" + UUID.randomUUID();
        Map<String, Object> settings = Map.of("group.id", group, "group.protocol", protocol);
        for (String round : List.of("one", "two")) {
            List<String> sent = values(100, round);
            try (var producer = producer(Map.of())) {
                send(producer, topic, 0, sent);
            }
            try (var consumer = consumer(settings)) {
                consumer.subscribe(List.of(topic));
                same(sent, take(consumer, sent.size()), round);
                consumer.commitSync(WAIT);
            }
        }
    }

    /**
     * Members that the server assigns to (KIP-848): two share what an expression matches, one
     * of them goes for a while and comes back, then for good, and a topic comes.
     */
    private static void consumerGroup() throws Exception {
        String name = "java-" + UUID.randomUUID();
        createNamed(name + "-a", 4);
        Map<String, Object> settings = new HashMap<>();
        settings.put("group.id", "group-" + UUID.randomUUID());
        settings.put("group.protocol", "consumer");
        SubscriptionPattern pattern = new SubscriptionPattern(name + "-[ab]");
        try (var one = consumer(settings)) {
            one.subscribe(pattern);
            settings.put("group.instance.id", "two");
            Set<TopicPartition> before;
            try (var two = consumer(settings)) {
                two.subscribe(pattern);
                share(2, List.of(one, two));
                before = two.assignment();
                Set<String> sent = new HashSet<>();
                try (var producer = producer(Map.of())) {
                    for (int partition = 0; partition < 4; partition++) {
                        List<String> values = values(50, "partition " + partition);
                        send(producer, name + "-a", partition, values);
                        sent.addAll(values);
                    }
                }
                Set<String> found = new HashSet<>(take(one, 100));
                found.addAll(take(two, 100));
                if (!found.equals(sent)) {
                    throw new AssertionError(found.size() + " of " + sent.size() + " were found");
                }
                one.commitSync(WAIT);
                two.commitSync(WAIT);
            }
            // A static member is back in time: nobody else notices.
            try (var two = consumer(settings)) {
                two.subscribe(pattern);
                share(2, List.of(one, two));
                if (!two.assignment().equals(before)) {
                    throw new AssertionError(before + " became " + two.assignment());
                }
            }
            try (Admin admin = Admin.create(Map.of("bootstrap.servers", bootstrap))) {
                String group = (String) settings.get("group.id");
                var described = admin.describeConsumerGroups(List.of(group)).all().get().get(group);
                if (described.members().size() != 2 || !described.type().name().equals("CONSUMER")) {
                    throw new AssertionError("described as " + described);
                }
                var two = new MemberToRemove("two");
                var options = new RemoveMembersFromConsumerGroupOptions(Set.of(two));
                admin.removeMembersFromConsumerGroup(group, options).all().get();
            }
            share(4, List.of(one));
            createNamed(name + "-b", 3);
            share(7, List.of(one));
        }
    }

    /** Polls all of them until each reads so many partitions. */
    private static void share(int count, List<KafkaConsumer<String, String>> consumers) {
        long end = System.nanoTime() + WAIT.toNanos();
        while (!consumers.stream().allMatch(of -> of.assignment().size() == count)) {
            if (System.nanoTime() > end) {
                List<Set<TopicPartition>> shares = new ArrayList<>();
                consumers.forEach(of -> shares.add(of.assignment()));
                throw new AssertionError("not " + count + " each: " + shares);
            }
            consumers.forEach(of -> of.poll(Duration.ofMillis(100)));
        }
    }

    /** Committed records are seen by committed readers, aborted ones never. */
    private static void transactions() throws Exception {
        String topic = create(1);
        List<String> expected = new ArrayList<>();
        try (var producer = producer(Map.of("transactional.id", "id-" + UUID.randomUUID()))) {
            producer.initTransactions();
            for (int number = 0; number < 6; number++) {
                List<String> sent = values(50, "transaction " + number);
                producer.beginTransaction();
                send(producer, topic, 0, sent);
                if (number % 3 == 1) {
                    producer.abortTransaction();
                } else {
                    producer.commitTransaction();
                    expected.addAll(sent);
                }
            }
        }
        try (var consumer = consumer(Map.of("isolation.level", "read_committed"))) {
            consumer.assign(List.of(new TopicPartition(topic, 0)));
            same(expected, take(consumer, expected.size()), "committed");
        }
    }

    /** Quotas are set, told, felt by a producer, and gone again. */
    private static void quotas() throws Exception {
        String topic = create(1);
        String client = "client-" + UUID.randomUUID();
        var entity = new ClientQuotaEntity(Map.of(ClientQuotaEntity.CLIENT_ID, client));
        var filter = ClientQuotaFilter.containsOnly(List.of(
                ClientQuotaFilterComponent.ofEntity(ClientQuotaEntity.CLIENT_ID, client)));
        try (Admin admin = Admin.create(Map.of("bootstrap.servers", bootstrap))) {
            limit(admin, entity, 50_000.0);
            told(admin, filter, Map.of(entity, Map.of("producer_byte_rate", 50_000.0)));
            try (var producer = producer(Map.of("client.id", client))) {
                // More than the windows let through at once.
                send(producer, topic, 0, values(2200, "limited"));
                if (throttled(producer) <= 0) {
                    throw new AssertionError("the producer was not throttled");
                }
            }
            limit(admin, entity, null);
            told(admin, filter, Map.of());
        }
    }

    private static void limit(Admin admin, ClientQuotaEntity entity, Double rate) throws Exception {
        var change = new ClientQuotaAlteration.Op("producer_byte_rate", rate);
        var alteration = new ClientQuotaAlteration(entity, List.of(change));
        admin.alterClientQuotas(List.of(alteration)).all().get();
    }

    private static void told(
            Admin admin, ClientQuotaFilter filter, Map<ClientQuotaEntity, Map<String, Double>> expected)
            throws Exception {
        var told = admin.describeClientQuotas(filter).entities().get();
        if (!told.equals(expected)) {
            throw new AssertionError(told + " is told, not " + expected);
        }
    }

    /** The longest throttle that a producer was told of. */
    private static double throttled(KafkaProducer<String, String> producer) {
        return producer.metrics().entrySet().stream()
                .filter(metric -> metric.getKey().name().equals("produce-throttle-time-max"))
                .mapToDouble(metric -> (double) metric.getValue().metricValue())
                .max()
                .orElse(0);
    }

    private static String create(int partitions) throws Exception {
        String topic = "java-" + UUID.randomUUID();
        createNamed(topic, partitions);
        return topic;
    }

    private static void createNamed(String topic, int partitions) throws Exception {
        try (Admin admin = Admin.create(Map.of("bootstrap.servers", bootstrap))) {
            admin.createTopics(List.of(new NewTopic(topic, partitions, (short) 1))).all().get();
        }
    }

    private static List<String> values(int count, String salt) {
        List<String> values = new ArrayList<>();
        for (int at = 0; at < count; at++) {
            values.add((salt + " " + at + " ").repeat(1 + at % 40));
        }
        return values;
    }

    private static KafkaProducer<String, String> producer(Map<String, Object> settings) {
        Map<String, Object> all = new HashMap<>(settings);
        all.put("bootstrap.servers", bootstrap);
        return new KafkaProducer<>(all, new StringSerializer(), new StringSerializer());
    }

    private static KafkaConsumer<String, String> consumer(Map<String, Object> settings) {
        Map<String, Object> all = new HashMap<>(settings);
        all.put("bootstrap.servers", bootstrap);
        all.put("auto.offset.reset", "earliest");
        all.put("enable.auto.commit", false);
        return new KafkaConsumer<>(all, new StringDeserializer(), new StringDeserializer());
    }

    private static void send(
            KafkaProducer<String, String> producer, String topic, int partition, List<String> values)
            throws Exception {
        List<Future<RecordMetadata>> underWay = new ArrayList<>();
        for (String value : values) {
            underWay.add(producer.send(new ProducerRecord<>(topic, partition, null, value)));
        }
        producer.flush();
        for (Future<RecordMetadata> of : underWay) {
            of.get();
        }
    }

    private static List<String> take(KafkaConsumer<String, String> consumer, int count) {
        List<String> found = new ArrayList<>();
        long end = System.nanoTime() + WAIT.toNanos();
        while (found.size() < count && System.nanoTime() < end) {
            for (ConsumerRecord<String, String> of : consumer.poll(Duration.ofMillis(200))) {
                found.add(of.value());
            }
        }
        return found;
    }

    private static void same(List<String> sent, List<String> found, String what) {
        if (!sent.equals(found)) {
            throw new AssertionError(
                    what + ": " + sent.size() + " sent, " + found.size() + " found, or others");
        }
    }
}
