package org.apache.kafka.tools;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Properties;
import java.util.concurrent.CyclicBarrier;
import java.util.concurrent.TimeUnit;

import org.apache.kafka.clients.producer.KafkaProducer;

/**
 * Runs ProducerPerformance several times side by side in one process: as many
 * processes of their own would spend the machine on starting.
 *
 * <p>It lies in the package of the tool because what it overrides is visible
 * there only. All producers are warm, and begin together once each has read its
 * payloads and made its client.
 *
 * <p>Arguments: the producers; the records of a warm-up, all producers together;
 * how many seconds to measure; records a second of all, or -1 for as many as
 * there may be; then the arguments of each ProducerPerformance, but for
 * --num-records and --throughput.
 */
public final class Producers {
    private static final int WARM_UPS = 2;

    private final int producers;
    private final double throughput;
    private final List<String> more;

    private Producers(int producers, double throughput, List<String> more) {
        this.producers = producers;
        this.throughput = throughput;
        this.more = more;
    }

    public static void main(String[] arguments) throws Exception {
        int producers = Integer.parseInt(arguments[0]);
        long warmUp = Long.parseLong(arguments[1]);
        double seconds = Double.parseDouble(arguments[2]);
        double throughput = Double.parseDouble(arguments[3]);
        List<String> more = Arrays.asList(arguments).subList(4, arguments.length);
        Producers all = new Producers(producers, throughput, more);
        double rate = 0;
        for (int i = 0; i < WARM_UPS; i++) {
            rate = warmUp * 1e9 / all.run(warmUp);
        }
        long records = (long) ((throughput > 0 ? throughput : rate) * seconds);
        System.out.println("measured");
        long nanos = all.run(records);
        System.out.printf("total %d records %d ns%n", all.each(records) * producers, nanos);
        System.exit(0);
    }

    private long each(long records) {
        return Math.max(1, records / producers);
    }

    /** Sends so many records, and returns how long it took until all were acknowledged. */
    private long run(long records) throws Exception {
        long[] began = new long[1];
        CyclicBarrier begin = new CyclicBarrier(producers, () -> began[0] = System.nanoTime());
        List<String> arguments = new ArrayList<>(more);
        String limit = throughput > 0 ? Double.toString(throughput / producers) : "-1";
        arguments.addAll(List.of("--num-records", Long.toString(each(records))));
        arguments.addAll(List.of("--throughput", limit));
        String[] ofEach = arguments.toArray(new String[0]);
        List<Thread> threads = new ArrayList<>();
        for (int i = 0; i < producers; i++) {
            Thread thread = new Thread(() -> produce(begin, ofEach));
            thread.start();
            threads.add(thread);
        }
        for (Thread thread : threads) {
            thread.join();
        }
        return System.nanoTime() - began[0];
    }

    private static void produce(CyclicBarrier begin, String[] arguments) {
        ProducerPerformance tool = new ProducerPerformance() {
            @Override
            KafkaProducer<byte[], byte[]> createKafkaProducer(Properties properties) {
                KafkaProducer<byte[], byte[]> producer = super.createKafkaProducer(properties);
                try {
                    begin.await(60, TimeUnit.SECONDS);
                } catch (Exception e) {
                    throw new IllegalStateException("another producer did not begin", e);
                }
                return producer;
            }
        };
        try {
            tool.start(arguments);
        } catch (Throwable e) {
            e.printStackTrace();
            System.exit(1);
        }
    }
}
