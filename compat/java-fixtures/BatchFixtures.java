// Writes record batches made by Kafka's MemoryRecordsBuilder, in every codec, with what a reader must find in them.
// Usage: BatchFixtures <output>
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.JsonNodeFactory;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.PrintWriter;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.security.MessageDigest;
import java.util.HexFormat;
import org.apache.kafka.common.compress.Compression;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.header.internals.RecordHeader;
import org.apache.kafka.common.record.TimestampType;
import org.apache.kafka.common.record.internal.CompressionType;
import org.apache.kafka.common.record.internal.ControlRecordType;
import org.apache.kafka.common.record.internal.EndTransactionMarker;
import org.apache.kafka.common.record.internal.MemoryRecords;
import org.apache.kafka.common.record.internal.MemoryRecordsBuilder;
import org.apache.kafka.common.record.internal.MutableRecordBatch;
import org.apache.kafka.common.record.internal.Record;

public class BatchFixtures {
  static final JsonNodeFactory NODE = JsonNodeFactory.instance;
  static final long NOW = 1_700_000_000_000L;
  static final ArrayNode cases = NODE.arrayNode();

  public static void main(String[] args) throws Exception {
    for (CompressionType type : CompressionType.values()) {
      Compression codec = Compression.of(type).build();
      add(type.name + ": every kind of key, value and header", various(builder(codec, TimestampType.CREATE_TIME, -1L, false)));
      add(type.name + ": of a transactional producer", various(builder(codec, TimestampType.CREATE_TIME, 4711L, true)));
      add(type.name + ": with append time", various(builder(codec, TimestampType.LOG_APPEND_TIME, -1L, false)));
      if (type != CompressionType.NONE) add(type.name + ": larger than a compression block", large(codec));
    }
    add("a control batch", MemoryRecords.withEndTransactionMarker(
        9L, NOW, 3, 4711L, (short) 2, new EndTransactionMarker(ControlRecordType.COMMIT, 5)));
    add("two batches", run());
    for (byte magic = 0; magic < 2; magic++) {
      MemoryRecordsBuilder builder = MemoryRecords.builder(
          ByteBuffer.allocate(1024), magic, Compression.NONE, TimestampType.CREATE_TIME, 0L);
      builder.append(NOW, "key".getBytes(), "value".getBytes());
      add("format " + magic, builder.build());
    }
    try (PrintWriter out = new PrintWriter(args[0], StandardCharsets.UTF_8)) {
      String separator = "[\n";
      for (var line : cases) {
        out.print(separator + line);
        separator = ",\n";
      }
      out.println("\n]");
    }
  }

  static MemoryRecordsBuilder builder(Compression codec, TimestampType timestamps, long producerId, boolean transactional) {
    boolean idempotent = producerId >= 0;
    return MemoryRecords.builder(ByteBuffer.allocate(1024), (byte) 2, codec, timestamps, 12_345_678_901L, NOW + 5,
        producerId, (short) (idempotent ? 2 : -1), idempotent ? 40 : -1, transactional, 7);
  }

  static MemoryRecords various(MemoryRecordsBuilder builder) {
    builder.append(NOW, bytes("key"), bytes("value"));
    builder.append(NOW - 1000, null, bytes("no key, an older timestamp"));
    builder.append(NOW + 10_000_000_000L, bytes("no value, a far timestamp"), null);
    builder.append(NOW, new byte[0], new byte[0]);
    builder.append(NOW, (byte[]) null, (byte[]) null);
    builder.append(NOW, bytes("headers"), bytes("a".repeat(200)), new Header[] {
      new RecordHeader("trace", bytes("1")),
      new RecordHeader("null", null),
      new RecordHeader("trace", bytes("2")),
      new RecordHeader("empty", new byte[0]),
      new RecordHeader("", bytes("no name")),
      new RecordHeader("trace", bytes("1")),
      new RecordHeader("schlüssel", new byte[] {0, -1, 127, -128}),
    });
    return builder.build();
  }

  static MemoryRecords large(Compression codec) {
    MemoryRecordsBuilder builder = builder(codec, TimestampType.CREATE_TIME, -1L, false);
    for (int i = 0; i < 400; i++) builder.append(NOW + i, bytes("k" + i), bytes(("row " + i % 7 + " ").repeat(150)));
    return builder.build();
  }

  static MemoryRecords run() {
    MemoryRecords first = various(builder(Compression.NONE, TimestampType.CREATE_TIME, -1L, false));
    MemoryRecords second = various(builder(Compression.gzip().build(), TimestampType.CREATE_TIME, -1L, false));
    ByteBuffer both = ByteBuffer.allocate(first.sizeInBytes() + second.sizeInBytes());
    both.put(first.buffer().duplicate()).put(second.buffer().duplicate()).flip();
    return MemoryRecords.readableRecords(both);
  }

  static void add(String name, MemoryRecords records) throws Exception {
    byte[] bytes = new byte[records.sizeInBytes()];
    records.buffer().duplicate().get(bytes);
    ObjectNode node = NODE.objectNode().put("name", name).put("hex", HexFormat.of().formatHex(bytes));
    ArrayNode batches = node.putArray("batches");
    for (MutableRecordBatch batch : records.batches()) batches.add(batch(batch));
    cases.add(node);
  }

  static ObjectNode batch(MutableRecordBatch batch) throws Exception {
    ObjectNode node = NODE.objectNode();
    node.put("magic", batch.magic());
    node.put("bytes", batch.sizeInBytes());
    if (batch.magic() < 2) return node;
    node.put("baseOffset", "" + batch.baseOffset());
    node.put("lastOffset", "" + batch.lastOffset());
    node.put("leaderEpoch", batch.partitionLeaderEpoch());
    node.put("maxTimestamp", "" + batch.maxTimestamp());
    node.put("isLogAppendTime", batch.timestampType() == TimestampType.LOG_APPEND_TIME);
    node.put("producerId", "" + batch.producerId());
    node.put("producerEpoch", batch.producerEpoch());
    node.put("baseSequence", batch.baseSequence());
    node.put("isTransactional", batch.isTransactional());
    node.put("isControl", batch.isControlBatch());
    node.put("codec", batch.compressionType().id);
    node.put("crc", batch.checksum());
    node.put("recordCount", batch.countOrNull());
    MessageDigest values = MessageDigest.getInstance("SHA-256");
    ArrayNode records = NODE.arrayNode();
    for (Record record : batch) {
      if (record.hasValue()) values.update(record.value().duplicate());
      ObjectNode line = NODE.objectNode().put("offset", "" + record.offset()).put("timestamp", "" + record.timestamp());
      line.put("key", hex(record.key())).put("value", hex(record.value()));
      ArrayNode headers = line.putArray("headers");
      for (Header header : record.headers()) {
        headers.addObject().put("key", header.key()).put("value", header.value() == null ? null : hex(ByteBuffer.wrap(header.value())));
      }
      records.add(line);
    }
    node.put("valuesSha256", HexFormat.of().formatHex(values.digest()));
    if (records.size() < 100) node.set("records", records);
    return node;
  }

  static String hex(ByteBuffer buffer) {
    if (buffer == null) return null;
    byte[] bytes = new byte[buffer.remaining()];
    buffer.duplicate().get(bytes);
    return HexFormat.of().formatHex(bytes);
  }

  static byte[] bytes(String text) {
    return text.getBytes(StandardCharsets.UTF_8);
  }
}
