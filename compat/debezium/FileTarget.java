import io.debezium.engine.ChangeEvent;
import io.debezium.engine.DebeziumEngine;
import io.debezium.engine.Header;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.io.Writer;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;

/**
 * A line of JSON for each event: {"topic":…,"key":…,"value":…,"headers":[[name,value],…]}. Keys, values and headers are
 * strings (or null) that hold what a record would, so that no number loses a digit on the way.
 */
final class FileTarget implements DebeziumRunner.Target {
  private final Writer out;

  FileTarget(Path path) throws IOException {
    out = Files.newBufferedWriter(path);
  }

  @Override
  public synchronized void handleBatch(
      List<ChangeEvent<byte[], byte[]>> events,
      DebeziumEngine.RecordCommitter<ChangeEvent<byte[], byte[]>> committer)
      throws InterruptedException {
    try {
      for (ChangeEvent<byte[], byte[]> event : events) {
        out.write(line(event));
        committer.markProcessed(event);
      }
      out.flush();
    } catch (IOException error) {
      throw new UncheckedIOException(error);
    }
    committer.markBatchFinished();
  }

  @Override
  public synchronized void close() throws IOException {
    out.close();
  }

  private static String line(ChangeEvent<byte[], byte[]> event) {
    StringBuilder line = new StringBuilder("{\"topic\":");
    quote(line, event.destination());
    quote(line.append(",\"key\":"), text(event.key()));
    quote(line.append(",\"value\":"), text(event.value()));
    line.append(",\"headers\":[");
    String separator = "";
    for (Header<byte[]> header : event.<byte[]>headers()) {
      quote(line.append(separator).append('['), header.getKey());
      quote(line.append(','), text(header.getValue()));
      line.append(']');
      separator = ",";
    }
    return line.append("]}\n").toString();
  }

  private static String text(byte[] bytes) {
    return bytes == null ? null : new String(bytes, StandardCharsets.UTF_8);
  }

  private static void quote(StringBuilder line, String text) {
    if (text == null) {
      line.append("null");
      return;
    }
    line.append('"');
    for (int i = 0; i < text.length(); i++) {
      char character = text.charAt(i);
      if (character == '"' || character == '\\') line.append('\\').append(character);
      else if (character < 0x20) line.append(String.format("\\u%04x", (int) character));
      else line.append(character);
    }
    line.append('"');
  }
}
