package dev.pocketvl.core.manifest;

import java.util.List;
import org.jspecify.annotations.Nullable;

/** What a model can be asked, and how an answer follows from what its graphs give. */
public sealed interface Task {
    /** The word that stands for it in manifests. */
    String kind();

    /**
     * Two embeddings of one space: {@code activation(scale * cosine + bias)}.
     *
     * @param first an embedding
     * @param second an embedding of the same space
     * @param firstScale where one {@code first} is asked about several {@code second}
     * @param secondScale the other way round
     * @param bias added to scaled cosines
     * @param activation from logits to probabilities
     * @param labels what is asked about by default; null: nothing
     * @param template in which each label stands for {@code {label}}; null without labels
     */
    record Contrastive(
            PortRef first,
            PortRef second,
            double firstScale,
            double secondScale,
            double bias,
            Activation activation,
            @Nullable List<String> labels,
            @Nullable String template)
            implements Task {
        @Override
        public String kind() {
            return "contrastive";
        }
    }

    /**
     * A component that scores a fixed list of answers to a question about a picture.
     *
     * @param logits float [1, N]; number i is of {@code labels[i]}
     * @param labels at least one
     * @param activation from logits to probabilities
     */
    record Labels(PortRef logits, List<String> labels, Activation activation) implements Task {
        public Labels {
            labels = List.copyOf(labels);
        }

        @Override
        public String kind() {
            return "labels";
        }
    }

    /**
     * An encoder by itself: what is asked for is its embedding.
     *
     * @param embedding float [1, D]
     */
    record Embed(PortRef embedding) implements Task {
        @Override
        public String kind() {
            return "embed";
        }
    }

    /**
     * A component that says whether a picture and a text fit; this library does not run it.
     *
     * @param logits class logits
     * @param positiveIndex the logit that says that they fit
     * @param activation from logits to probabilities
     * @param reranks the contrastive task whose best answers are asked about, or null
     */
    record Matching(PortRef logits, int positiveIndex, Activation activation, @Nullable String reranks)
            implements Task {
        @Override
        public String kind() {
            return "match";
        }
    }

    /**
     * A decoder that writes an answer, token by token; this library does not run it.
     *
     * @param components that it runs
     * @param logits what the next token is chosen by
     */
    record Generate(List<String> components, PortRef logits) implements Task {
        public Generate {
            components = List.copyOf(components);
        }

        @Override
        public String kind() {
            return "generate";
        }
    }
}
