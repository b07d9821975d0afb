package dev.pocketvl.core.text;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import com.google.gson.JsonObject;
import java.io.IOException;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import org.junit.jupiter.api.Test;

/** The ids of hard texts are those of the Python runtime. */
class TextCasesTest {
    private static final int SHOWN = 10;

    @Test
    void idsOfTheCommittedCasesAreEqual() throws Exception {
        check(Path.of(TextCasesTest.class.getResource("/texts").toURI()));
    }

    @Test
    void idsOfAWrittenPackAreEqual() throws IOException {
        String pack = System.getProperty("pocketvl.cases");
        assumeTrue(pack != null, "no pack: write one with tests.android.write_texts and give -Dpocketvl.cases=OUT");
        check(Path.of(pack));
    }

    private static void check(Path pack) throws IOException {
        List<CaseFolder> folders = CaseFolder.all(pack);
        assertFalse(folders.isEmpty(), pack + " holds no cases");
        List<String> differences = new ArrayList<>();
        int compared = 0;
        for (CaseFolder folder : folders) {
            Tokenizer tokenizer = folder.open();
            List<JsonObject> cases = folder.cases();
            assertFalse(cases.isEmpty(), folder.name() + " holds no cases");
            int before = differences.size();
            long nanos = 0;
            for (JsonObject each : cases) {
                String text = each.get("text").getAsString();
                long start = System.nanoTime();
                String found = CaseFolder.outcome(tokenizer, text);
                nanos += System.nanoTime() - start;
                String wanted = CaseFolder.wanted(each);
                compared++;
                if (!found.equals(wanted)) {
                    differences.add(
                            folder.name() + " " + each.get("text") + "\n  Java   " + found + "\n  Python " + wanted
                                    + " " + each.get("message"));
                }
            }
            System.out.printf(
                    "%-28s %6d texts, %5d differ; Java %.0f us a text, Python %.0f us%n",
                    folder.name(),
                    cases.size(),
                    differences.size() - before,
                    nanos / 1e3 / cases.size(),
                    1e3 * folder.pythonMs() / cases.size());
        }
        System.out.printf("%d of %d texts differ%n", differences.size(), compared);
        List<String> shown = differences.subList(0, Math.min(SHOWN, differences.size()));
        assertEquals(0, differences.size(), "of " + compared + " texts: " + String.join("\n", shown));
    }
}
