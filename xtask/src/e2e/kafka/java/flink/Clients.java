import java.time.Duration;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.stream.Collectors;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.TimeoutException;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;

/** What stands before and behind the job: `java Clients BOOTSTRAP feed|read TOPIC …`. */
public final class Clients {
    private static final int TRANSACTION_RECORDS = 100;

    public static void main(String[] arguments) throws Exception {
        String topic = arguments[2];
        switch (arguments[1]) {
            case "feed" ->
                    feed(
                            arguments[0],
                            topic,
                            Integer.parseInt(arguments[3]),
                            Long.parseLong(arguments[4]),
                            Long.parseLong(arguments[5]));
            case "read" -> read(arguments[0], topic);
            default -> throw new IllegalArgumentException(arguments[1]);
        }
    }

    /**
     * Record n has the value `key-(n % keys)` and the time `start + n * step`, and is in partition
     * `n % partitions`. They come in transactions; every fourth is aborted, and sent again. Goes on until
     * standard input ends; then a record far ahead in each partition closes all windows, and the
     * count is printed.
     */
    private static void feed(String bootstrap, String topic, int keys, long start, long step)
            throws Exception {
        var isOver = new AtomicBoolean();
        var input =
                new Thread(
                        () -> {
                            try {
                                while (System.in.read() >= 0) {
                                    // Only its end counts.
                                }
                            } catch (java.io.IOException ended) {
                                // As if it had ended.
                            }
                            isOver.set(true);
                        });
        input.setDaemon(true);
        input.start();
        Map<String, Object> settings = new HashMap<>();
        settings.put("bootstrap.servers", bootstrap);
        settings.put("transactional.id", "feed-" + topic);
        try (var producer =
                new KafkaProducer<>(settings, new StringSerializer(), new StringSerializer())) {
            producer.initTransactions();
            int partitions = producer.partitionsFor(topic).size();
            long next = 0;
            for (long transaction = 0; !isOver.get(); transaction++) {
                boolean isAborted = transaction % 4 == 0;
                producer.beginTransaction();
                for (int at = 0; at < TRANSACTION_RECORDS; at++) {
                    long number = next + at;
                    producer.send(
                            new ProducerRecord<>(
                                    topic,
                                    (int) (number % partitions),
                                    start + number * step,
                                    null,
                                    "key-" + number % keys));
                }
                producer.flush();
                if (isAborted) {
                    again(producer::abortTransaction);
                } else {
                    again(producer::commitTransaction);
                    next += TRANSACTION_RECORDS;
                }
            }
            long ahead = start + next * step + Duration.ofDays(1).toMillis();
            producer.beginTransaction();
            for (int partition = 0; partition < partitions; partition++) {
                producer.send(new ProducerRecord<>(topic, partition, ahead, null, "end"));
            }
            again(producer::commitTransaction);
            System.out.println(next);
        }
    }

    /** A server that is away for a while makes the end of a transaction time out; it can be repeated. */
    private static void again(Runnable end) {
        while (true) {
            try {
                end.run();
                return;
            } catch (TimeoutException away) {
                System.err.println("again: " + away);
            }
        }
    }

    /** Prints the values of all that is committed, a line each. */
    private static void read(String bootstrap, String topic) {
        Map<String, Object> settings = new HashMap<>();
        settings.put("bootstrap.servers", bootstrap);
        settings.put("isolation.level", "read_committed");
        settings.put("enable.auto.commit", false);
        try (var consumer =
                new KafkaConsumer<>(settings, new StringDeserializer(), new StringDeserializer())) {
            List<TopicPartition> all =
                    consumer.partitionsFor(topic).stream()
                            .map(of -> new TopicPartition(topic, of.partition()))
                            .collect(Collectors.toList());
            consumer.assign(all);
            consumer.seekToBeginning(all);
            Map<TopicPartition, Long> ends = consumer.endOffsets(all);
            var lines = new StringBuilder();
            while (all.stream().anyMatch(of -> consumer.position(of) < ends.get(of))) {
                for (ConsumerRecord<String, String> of : consumer.poll(Duration.ofMillis(200))) {
                    lines.append(of.value()).append('\n');
                }
            }
            System.out.print(lines);
        }
    }
}
