package dev.pocketvl.core.tasks;

import dev.pocketvl.core.engine.DType;
import dev.pocketvl.core.engine.Tensor;
import dev.pocketvl.core.manifest.PortKind;
import dev.pocketvl.core.text.TokenIds;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.Map;

/**
 * What a processor made of one input.
 *
 * @param processor its name in the manifest
 * @param tensors by the kinds of ports that they fill
 */
public record Features(String processor, Map<PortKind, Tensor> tensors) {
    /** The pixels of a picture, uint8 [height, width, 3]. */
    public static Features ofPixels(String processor, byte[] rgb, int height, int width) {
        ByteBuffer data = ByteBuffer.allocateDirect(rgb.length).order(ByteOrder.nativeOrder());
        data.duplicate().put(rgb);
        return new Features(
                processor, Map.of(PortKind.PIXELS, new Tensor(DType.UINT8, new int[] {1, height, width, 3}, data)));
    }

    /** The ids of a text, and their mask. */
    public static Features ofText(String processor, TokenIds tokens) {
        return new Features(
                processor,
                Map.of(PortKind.TOKEN_IDS, ofInts(tokens.ids()), PortKind.ATTENTION_MASK, ofInts(tokens.mask())));
    }

    private static Tensor ofInts(int[] values) {
        ByteBuffer data =
                ByteBuffer.allocateDirect(Integer.BYTES * values.length).order(ByteOrder.nativeOrder());
        data.asIntBuffer().put(values);
        return new Tensor(DType.INT32, new int[] {1, values.length}, data);
    }
}
