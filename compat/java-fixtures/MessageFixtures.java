// Writes every request and response of the APIs below, in every version that this Kafka library knows and in three
// fillings (all defaults; every field set; every nullable field null), as the library's own bytes, with the values
// beside them. Fields and their version ranges come from the message descriptions in the library's jar.
// Usage: MessageFixtures <output> [<output of another library, whose versions to leave out>]
import com.fasterxml.jackson.core.JsonParser;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.JsonNodeFactory;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.File;
import java.io.InputStream;
import java.io.PrintWriter;
import java.lang.reflect.Method;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Collection;
import java.util.HashSet;
import java.util.HexFormat;
import java.util.List;
import java.util.Set;
import org.apache.kafka.common.Uuid;
import org.apache.kafka.common.message.RequestHeaderData;
import org.apache.kafka.common.message.ResponseHeaderData;
import org.apache.kafka.common.protocol.ApiKeys;
import org.apache.kafka.common.protocol.ByteBufferAccessor;
import org.apache.kafka.common.protocol.Message;
import org.apache.kafka.common.protocol.ObjectSerializationCache;

public class MessageFixtures {
  static final int[] KEYS = {
    0, 1, 2, 3, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 28, 32, 33, 35, 36, 37, 42,
    44, 47, 60, 61, 65, 66, 75
  };
  static final ObjectMapper JSON = new ObjectMapper().configure(JsonParser.Feature.ALLOW_COMMENTS, true);
  static final JsonNodeFactory NODE = JsonNodeFactory.instance;

  enum Filling { DEFAULT, FULL, NULLS }

  /** Counts up within a message, so that no two of its fields have the same value. */
  static int counter;

  public static void main(String[] args) throws Exception {
    Set<String> known = new HashSet<>();
    if (args.length > 1) {
      for (JsonNode line : JSON.readTree(new File(args[1]))) known.add(line.get("key") + ":" + line.get("version"));
    }
    try (PrintWriter out = new PrintWriter(args[0], StandardCharsets.UTF_8)) {
      String separator = "[\n";
      for (int key : KEYS) {
        ApiKeys api = ApiKeys.forId(key);
        JsonNode request = description(api.name, "Request");
        JsonNode response = description(api.name, "Response");
        for (short version = api.oldestVersion(); version <= api.latestVersion(false); version++) {
          if (known.contains(key + ":" + version)) continue;
          ObjectNode line = NODE.objectNode().put("key", key).put("version", version);
          line.set("requestHeader", requestHeader(api, version));
          line.set("responseHeader", responseHeader(api, version));
          for (Filling filling : Filling.values()) {
            line.set(filling.name().toLowerCase() + "Request", message(request, version, filling));
            line.set(filling.name().toLowerCase() + "Response", message(response, version, filling));
          }
          out.print(separator + line);
          separator = ",\n";
        }
      }
      out.println("\n]");
    }
  }

  static JsonNode description(String name, String kind) throws Exception {
    try (InputStream in = Message.class.getResourceAsStream("/common/message/" + name + kind + ".json")) {
      return JSON.readTree(in);
    }
  }

  static JsonNode requestHeader(ApiKeys api, short version) {
    RequestHeaderData header = new RequestHeaderData()
        .setRequestApiKey(api.id).setRequestApiVersion(version).setCorrelationId(0x01020304).setClientId("clïent");
    return NODE.textNode(hex(header, api.requestHeaderVersion(version)));
  }

  static JsonNode responseHeader(ApiKeys api, short version) {
    return NODE.textNode(hex(new ResponseHeaderData().setCorrelationId(0x01020304), api.responseHeaderVersion(version)));
  }

  static ObjectNode message(JsonNode description, short version, Filling filling) throws Exception {
    Class<?> type = Class.forName("org.apache.kafka.common.message." + description.get("name").asText() + "Data");
    Message message = (Message) type.getConstructor().newInstance();
    Shape shape = new Shape(type, description, version);
    counter = 0;
    if (filling != Filling.DEFAULT) shape.fill(message, description.get("fields"), filling);
    ObjectNode node = NODE.objectNode();
    node.put("hex", hex(message, version));
    node.set("value", shape.values(message, description.get("fields")));
    return node;
  }

  static String hex(Message message, short version) {
    ObjectSerializationCache cache = new ObjectSerializationCache();
    ByteBuffer buffer = ByteBuffer.allocate(message.size(cache, version));
    message.write(new ByteBufferAccessor(buffer), cache, version);
    return HexFormat.of().formatHex(buffer.array());
  }

  record Shape(Class<?> outer, JsonNode description, short version) {
    JsonNode structFields(JsonNode field, String type) {
      if (field.has("fields")) return field.get("fields");
      for (JsonNode struct : description.path("commonStructs")) {
        if (struct.get("name").asText().equals(type)) return struct.get("fields");
      }
      return null;
    }

    static boolean within(String range, short version) {
      if (range.equals("none")) return false;
      if (range.endsWith("+")) return version >= Short.parseShort(range.substring(0, range.length() - 1));
      String[] ends = range.split("-");
      return version >= Short.parseShort(ends[0]) && version <= Short.parseShort(ends[ends.length - 1]);
    }

    boolean carried(JsonNode field) {
      return within(field.get("versions").asText(), version);
    }

    void fill(Object target, JsonNode fields, Filling filling) throws Exception {
      for (JsonNode field : fields) {
        if (!carried(field)) continue;
        String name = field.get("name").asText();
        Method setter = null;
        for (Method method : target.getClass().getMethods()) {
          if (method.getName().equalsIgnoreCase("set" + name) && method.getParameterCount() == 1) setter = method;
        }
        boolean nullable = field.has("nullableVersions") && within(field.get("nullableVersions").asText(), version);
        Object value = filling == Filling.NULLS && nullable
            ? null
            : value(field, field.get("type").asText(), setter.getParameterTypes()[0], filling);
        setter.invoke(target, value);
      }
    }

    Object value(JsonNode field, String type, Class<?> wanted, Filling filling) throws Exception {
      int n = ++counter;
      if (type.startsWith("[]")) {
        @SuppressWarnings("unchecked")
        Collection<Object> items = List.class == wanted
            ? new ArrayList<>()
            : (Collection<Object>) wanted.getConstructor().newInstance();
        for (int i = 0; i < 2; i++) items.add(value(field, type.substring(2), null, filling));
        return items;
      }
      switch (type) {
        case "bool": return true;
        case "int8": return (byte) (n % 100 + 1);
        case "int16": return (short) (300 + n);
        case "uint16": return 0xff00 + n;
        case "int32": return 0x01000000 + n;
        case "uint32": return 0xff000000L + n;
        case "int64": return (n % 2 == 0 ? 1L : -1L) * (0x0102030405000000L + n);
        case "float64": return n + 0.5;
        case "uuid": return new Uuid(0xfedcba9876543210L, n);
        // The 40th and every further one is longer than a one-byte varint can say.
        case "string": return "näme-" + n + (n % 40 == 0 ? "-".repeat(150) : "");
        case "bytes": {
          byte[] bytes = ("bytes-" + n).getBytes(StandardCharsets.UTF_8);
          return wanted == ByteBuffer.class ? ByteBuffer.wrap(bytes) : bytes;
        }
        case "records":
          return memoryRecords().getMethod("readableRecords", ByteBuffer.class)
              .invoke(null, ByteBuffer.wrap(("records-" + n).getBytes(StandardCharsets.UTF_8)));
        default: {
          Object struct = Class.forName(outer.getName() + "$" + type).getConstructor().newInstance();
          fill(struct, structFields(field, type), filling);
          return struct;
        }
      }
    }

    /** Kafka 4 moved the class. */
    static Class<?> memoryRecords() throws ClassNotFoundException {
      try {
        return Class.forName("org.apache.kafka.common.record.internal.MemoryRecords");
      } catch (ClassNotFoundException e) {
        return Class.forName("org.apache.kafka.common.record.MemoryRecords");
      }
    }

    ObjectNode values(Object source, JsonNode fields) throws Exception {
      ObjectNode node = NODE.objectNode();
      for (JsonNode field : fields) {
        if (!carried(field)) continue;
        String name = field.get("name").asText();
        String camel = Character.toLowerCase(name.charAt(0)) + name.substring(1);
        Object value = source.getClass().getMethod(camel).invoke(source);
        node.set(camel, json(field, field.get("type").asText(), value));
      }
      return node;
    }

    JsonNode json(JsonNode field, String type, Object value) throws Exception {
      if (value == null) return NODE.nullNode();
      if (value instanceof Collection<?> items) {
        ArrayNode array = NODE.arrayNode();
        for (Object item : items) array.add(json(field, type.substring(2), item));
        return array;
      }
      if (value instanceof String text) return NODE.textNode(text);
      if (value instanceof Boolean flag) return NODE.booleanNode(flag);
      if (type.equals("int64")) return NODE.textNode(value.toString());
      if (value instanceof Double number) return NODE.numberNode(number);
      if (value instanceof Number number) return NODE.numberNode(number.longValue());
      if (value instanceof Uuid uuid) {
        return NODE.textNode(
            new java.util.UUID(uuid.getMostSignificantBits(), uuid.getLeastSignificantBits()).toString());
      }
      if (value instanceof byte[] bytes) return NODE.textNode(HexFormat.of().formatHex(bytes));
      if (value instanceof ByteBuffer buffer) return json(field, type, copy(buffer));
      if (type.equals("records")) return json(field, type, memoryRecords().getMethod("buffer").invoke(value));
      return values(value, structFields(field, type));
    }

    static byte[] copy(ByteBuffer buffer) {
      byte[] bytes = new byte[buffer.remaining()];
      buffer.duplicate().get(bytes);
      return bytes;
    }
  }
}
