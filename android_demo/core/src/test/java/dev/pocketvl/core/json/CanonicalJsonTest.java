package dev.pocketvl.core.json;

import static org.junit.jupiter.api.Assertions.assertEquals;

import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import org.junit.jupiter.api.Test;

class CanonicalJsonTest {
    private static Object parsed(String text) {
        return StrictJson.parse(ByteBuffer.wrap(text.getBytes(StandardCharsets.UTF_8)), "it");
    }

    @Test
    void theExampleOfTheFormat() {
        assertEquals(
                "{\"a\":\"\u00e9\",\"b\":[1.50,1e-5]}",
                CanonicalJson.text(parsed("{\"b\": [1.50, 1e-5], \"a\": \"\\u00e9\"}")));
    }

    @Test
    void numbersKeepTheirTextWhateverItsLength() {
        String numbers = "[0,-0,1E2,1.0e+05,9223372036854775807,9223372036854775808,-9223372036854775808,0.1000]";
        assertEquals(numbers, CanonicalJson.text(parsed(numbers)));
    }

    @Test
    void keysAreSortedByCodePointsAndNotByUtf16() {
        assertEquals(
                "{\"\":1,\"a\":2,\"ab\":3,\"\uff61\":4,\"\ud83d\ude00\":5}",
                CanonicalJson.text(parsed("{\"\ud83d\ude00\": 5, \"ab\": 3, \"\uff61\": 4, \"a\": 2, \"\": 1}")));
    }

    @Test
    void onlyWhatMustBeIsEscaped() {
        String escaped = "[\"\\\"\\\\\\b\\t\\n\\f\\r\\u0000\\u001f\"]";
        assertEquals(escaped, CanonicalJson.text(parsed(escaped)));
        assertEquals("[\"/\u007f\u2028\"]", CanonicalJson.text(parsed("[\"\\/\\u007f\\u2028\"]")));
    }

    @Test
    void theChecksumIsOfItsUtf8() {
        // printf '{"a":"é"}' | sha256sum
        assertEquals(
                "b3a092a6af48807fa9482b2ee140105575daa26d5b24b3c0e60a7e2dee6683b1",
                CanonicalJson.sha256(parsed("{\"a\": \"\u00e9\"}")));
    }
}
