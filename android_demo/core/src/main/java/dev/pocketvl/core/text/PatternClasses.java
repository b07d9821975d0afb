package dev.pocketvl.core.text;

import dev.pocketvl.core.errors.BundleException;
import java.util.Arrays;
import java.util.List;
import java.util.Locale;

/** The character classes of regular expressions, like {@code \s} and {@code \p{L}}, as Oniguruma has them. */
final class PatternClasses {
    private static final List<String> CATEGORIES = Arrays.asList(
            "lu", "ll", "lt", "lm", "lo", "mn", "mc", "me", "nd", "nl", "no", "pc", "pd", "ps", "pe", "pi", "pf", "po",
            "sm", "sc", "sk", "so", "zs", "zl", "zp", "cc", "cf", "co", "cn");
    private static final List<String> GROUPS =
            Arrays.asList("letter", "mark", "number", "punctuation", "symbol", "separator", "other");

    private static final CodePointClasses TABLE = CodePointClasses.unpack(UnicodeData.CATEGORY);
    private static final CodePointSet SPACE = CodePointSet.unpack(UnicodeData.PATTERN_SPACE);
    private static final CodePointSet WORD = CodePointSet.unpack(UnicodeData.PATTERN_WORD);
    private static final CodePointSet DIGIT = ofCategories("nd");

    private PatternClasses() {}

    static CodePointSet space() {
        return SPACE;
    }

    static CodePointSet word() {
        return WORD;
    }

    static CodePointSet digit() {
        return DIGIT;
    }

    /**
     * The set of a property, whose name is matched without regard to case, spaces, hyphens and underscores.
     *
     * @throws BundleException it is none of the general categories and not Han
     */
    static CodePointSet property(String name) {
        String plain = name.toLowerCase(Locale.ROOT).replace("_", "").replace("-", "").replace(" ", "");
        if (plain.equals("han")) {
            return CodePointSet.unpack(UnicodeData.PATTERN_HAN);
        }
        String category = GROUPS.contains(plain) ? plain.substring(0, 1) : plain;
        if (category.equals("o")) {
            category = "c"; // the group named Other
        }
        if (CATEGORIES.contains(category) || category.length() == 1 && "lmnpszc".contains(category)) {
            return ofCategories(category);
        }
        throw new BundleException("the regular expression's property " + name + " is not supported");
    }

    private static CodePointSet ofCategories(String prefix) {
        boolean[] flags = new boolean[CATEGORIES.size()];
        for (int index = 0; index < flags.length; index++) {
            flags[index] = CATEGORIES.get(index).startsWith(prefix);
        }
        return CodePointSet.ofClasses(TABLE, flags);
    }
}
