import java.time.Duration;
import java.util.HashMap;
import java.util.Map;
import org.apache.flink.api.common.eventtime.WatermarkStrategy;
import org.apache.flink.api.common.functions.AggregateFunction;
import org.apache.flink.api.common.serialization.SimpleStringSchema;
import org.apache.flink.api.common.typeinfo.Types;
import org.apache.flink.configuration.Configuration;
import org.apache.flink.connector.base.DeliveryGuarantee;
import org.apache.flink.connector.kafka.sink.KafkaRecordSerializationSchema;
import org.apache.flink.connector.kafka.sink.KafkaSink;
import org.apache.flink.connector.kafka.sink.TransactionNamingStrategy;
import org.apache.flink.connector.kafka.source.KafkaSource;
import org.apache.flink.connector.kafka.source.enumerator.initializer.OffsetsInitializer;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;
import org.apache.flink.streaming.api.functions.windowing.ProcessWindowFunction;
import org.apache.flink.streaming.api.windowing.assigners.TumblingEventTimeWindows;
import org.apache.flink.streaming.api.windowing.windows.TimeWindow;
import org.apache.flink.util.Collector;

/**
 * A job that counts records by their value in windows of event time, exactly once, without an end:
 * `java Counts BOOTSTRAP INPUT OUTPUT CHECKPOINTS NAMING WINDOW_MS [CHECKPOINT]`. With a checkpoint
 * it goes on from there.
 */
public final class Counts {
    public static void main(String[] arguments) throws Exception {
        String bootstrap = arguments[0];
        String input = arguments[1];
        String output = arguments[2];
        Map<String, String> settings = new HashMap<>();
        settings.put("execution.checkpointing.interval", "300 ms");
        settings.put("execution.checkpointing.timeout", "30 s");
        settings.put("execution.checkpointing.storage", "filesystem");
        settings.put("execution.checkpointing.dir", arguments[3]);
        settings.put(
                "execution.checkpointing.externalized-checkpoint-retention",
                "RETAIN_ON_CANCELLATION");
        // The server is killed under the job, which has to come back by itself.
        settings.put("restart-strategy.type", "fixed-delay");
        settings.put("restart-strategy.fixed-delay.attempts", "1000000");
        settings.put("restart-strategy.fixed-delay.delay", "200 ms");
        if (arguments.length > 6) {
            settings.put("execution.state-recovery.path", arguments[6]);
        }
        var environment =
                StreamExecutionEnvironment.createLocalEnvironment(
                        2, Configuration.fromMap(settings));
        var source =
                KafkaSource.<String>builder()
                        .setBootstrapServers(bootstrap)
                        .setTopics(input)
                        .setGroupId(output)
                        .setStartingOffsets(OffsetsInitializer.earliest())
                        .setProperty("isolation.level", "read_committed")
                        .setValueOnlyDeserializer(new SimpleStringSchema())
                        .build();
        var sink =
                KafkaSink.<String>builder()
                        .setBootstrapServers(bootstrap)
                        .setDeliveryGuarantee(DeliveryGuarantee.EXACTLY_ONCE)
                        .setTransactionalIdPrefix(output)
                        .setTransactionNamingStrategy(
                                TransactionNamingStrategy.valueOf(arguments[4]))
                        .setProperty("transaction.timeout.ms", "900000")
                        .setRecordSerializer(
                                KafkaRecordSerializationSchema.<String>builder()
                                        .setTopic(output)
                                        .setValueSerializationSchema(new SimpleStringSchema())
                                        .build())
                        .build();
        // The event time is the record's.
        environment
                .fromSource(source, WatermarkStrategy.forMonotonousTimestamps(), "input")
                .keyBy(value -> value, Types.STRING)
                .window(
                        TumblingEventTimeWindows.of(
                                Duration.ofMillis(Long.parseLong(arguments[5]))))
                .aggregate(new Count(), new Line())
                .sinkTo(sink);
        environment.execute("counts");
    }

    /** How many records there are. */
    public static final class Count implements AggregateFunction<String, Long, Long> {
        @Override
        public Long createAccumulator() {
            return 0L;
        }

        @Override
        public Long add(String value, Long count) {
            return count + 1;
        }

        @Override
        public Long getResult(Long count) {
            return count;
        }

        @Override
        public Long merge(Long one, Long other) {
            return one + other;
        }
    }

    /** `START VALUE COUNT` of a window. */
    public static final class Line extends ProcessWindowFunction<Long, String, String, TimeWindow> {
        @Override
        public void process(
                String value, Context context, Iterable<Long> counts, Collector<String> lines) {
            for (long count : counts) {
                lines.collect(context.window().getStart() + " " + value + " " + count);
            }
        }
    }
}
