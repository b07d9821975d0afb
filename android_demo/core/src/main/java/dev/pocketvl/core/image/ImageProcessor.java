package dev.pocketvl.core.image;

import dev.pocketvl.core.errors.BundleException;
import dev.pocketvl.core.errors.InputException;
import dev.pocketvl.core.image.ImageSettings.Alpha;
import dev.pocketvl.core.image.ImageSettings.Anchor;
import dev.pocketvl.core.image.ImageSettings.CenterCrop;
import dev.pocketvl.core.image.ImageSettings.Mode;
import dev.pocketvl.core.image.ImageSettings.Orientation;
import dev.pocketvl.core.image.ImageSettings.Pad;
import dev.pocketvl.core.image.ImageSettings.Resize;
import dev.pocketvl.core.image.ImageSettings.Rounding;
import dev.pocketvl.core.image.ImageSettings.Step;
import java.util.List;
import org.jspecify.annotations.Nullable;

/**
 * Makes the pixels of a graph out of a picture: a manifest's processor of kind {@code image}. It holds nothing but its
 * settings, so any number of threads may use it at once.
 *
 * <p>Beyond the picture it needs memory for 16 rows of it and for what comes out, and with several resize steps for
 * what lies between them.
 */
public final class ImageProcessor {
    /** No picture between two steps has more pixels; the runtime's limit. */
    static final int MAX_PIXELS = 89_000_000;

    private static final byte[] BLACK = new byte[3];

    private final ImageSettings settings;

    /**
     * @throws BundleException sizes are impossible, or the last step does not make a picture of the settings' size
     */
    public ImageProcessor(ImageSettings settings) {
        int height = 0;
        int width = 0;
        for (Step step : settings.steps()) {
            int[] size = sizeAfter(step);
            width = size[0];
            height = size[1];
        }
        if (height != settings.height() || width != settings.width()) {
            throw new BundleException("image processor: its steps end with " + size(width, height) + ", its output is "
                    + size(settings.width(), settings.height()) + "; export the bundle again");
        }
        this.settings = settings;
    }

    /**
     * Does the processor's steps.
     *
     * @return uint8 [height, width, 3], row-major, red first, in the size that the settings name
     * @throws InputException the picture has no pixels or not as many as it says, or is so elongated, or so large, that
     *     a step cannot be done
     */
    public byte[] pixels(Picture picture) {
        check(picture);
        int orientation = settings.orientation() == Orientation.EXIF ? picture.orientation() : 1;
        RgbRows image = new PictureRows(picture, orientation, settings.alpha() == Alpha.OVER_WHITE);
        List<Step> steps = settings.steps();
        for (int i = 0; i < steps.size(); i++) {
            Step step = steps.get(i);
            if (step instanceof Resize resize) {
                boolean cropped = i + 1 < steps.size() && steps.get(i + 1) instanceof CenterCrop;
                image = resized(image, resize, cropped ? (CenterCrop) steps.get(++i) : null);
            } else if (step instanceof CenterCrop crop) {
                image = cropped(image, crop);
            } else if (step instanceof Pad pad) {
                image = padded(image, pad);
            }
        }
        return ((RgbPixels) image).rgb();
    }

    private static void check(Picture picture) {
        int width = picture.width();
        int height = picture.height();
        if (width < 1 || height < 1) {
            throw new InputException("the picture has no pixels (" + size(width, height) + "); give another one");
        }
        if ((long) width * height > MAX_PIXELS) {
            throw new InputException("the picture is " + size(width, height) + ", more than " + MAX_PIXELS
                    + " pixels; decode it at a smaller size");
        }
        if (picture.argb().length != width * height) {
            throw new InputException("the picture has " + picture.argb().length + " pixels, and " + size(width, height)
                    + " are " + width * height + "; give them all");
        }
    }

    /** Resizes, and computes only what {@code crop}, where there is one, leaves. */
    private static RgbRows resized(RgbRows image, Resize step, @Nullable CenterCrop crop) {
        int[] size = resizedSize(image, step);
        int width = size[0];
        int height = size[1];
        int left = crop == null ? 0 : offset(width, crop.width(), crop.rounding());
        int top = crop == null ? 0 : offset(height, crop.height(), crop.rounding());
        int right = crop == null ? width : left + crop.width();
        int bottom = crop == null ? height : top + crop.height();
        int firstColumn = Math.max(0, left);
        int firstRow = Math.max(0, top);
        PassWeights across = PassWeights.of(
                image.width(), width, firstColumn, Math.min(width, right), step.filter(), step.antialias());
        PassWeights down = PassWeights.of(
                image.height(), height, firstRow, Math.min(height, bottom), step.filter(), step.antialias());
        RgbPixels inside = Resampler.resized(image, across, down);
        if (inside.width() == right - left && inside.height() == bottom - top) {
            return inside;
        }
        return RgbPixels.framed(inside, firstColumn - left, firstRow - top, right - left, bottom - top, BLACK);
    }

    /** Width and height that a resize gives a picture. */
    private static int[] resizedSize(RgbRows image, Resize step) {
        long width = step.width();
        long height = step.height();
        if (step.mode() != Mode.EXACT) {
            boolean widthIsSet = image.width() <= image.height() == (step.mode() == Mode.SHORTEST_EDGE);
            int set = widthIsSet ? image.width() : image.height();
            int other = widthIsSet ? image.height() : image.width();
            long follows = (long) rounded((double) ((long) step.size() * other) / set, step.rounding());
            width = widthIsSet ? step.size() : follows;
            height = widthIsSet ? follows : step.size();
        }
        if (width < 1 || height < 1 || width * Math.max(height, image.height()) > MAX_PIXELS) {
            throw new InputException("the picture is " + size(image.width(), image.height())
                    + ", so elongated that resizing it to " + size(width, height) + " would leave nothing, or take more"
                    + " than " + MAX_PIXELS + " pixels; cut it first");
        }
        return new int[] {(int) width, (int) height};
    }

    private static RgbRows cropped(RgbRows image, CenterCrop step) {
        int left = offset(image.width(), step.width(), step.rounding());
        int top = offset(image.height(), step.height(), step.rounding());
        return RgbPixels.framed(image, -left, -top, step.width(), step.height(), BLACK);
    }

    private static RgbRows padded(RgbRows image, Pad step) {
        if (image.width() > step.width() || image.height() > step.height()) {
            throw new InputException("the picture is " + size(image.width(), image.height())
                    + " where it is to be padded to " + size(step.width(), step.height()) + "; make it smaller first");
        }
        boolean centred = step.anchor() == Anchor.CENTER;
        int left = centred ? (step.width() - image.width()) / 2 : 0;
        int top = centred ? (step.height() - image.height()) / 2 : 0;
        int[] value = step.value();
        byte[] fill = {(byte) value[0], (byte) value[1], (byte) value[2]};
        return RgbPixels.framed(image, left, top, step.width(), step.height(), fill);
    }

    private static int offset(int size, int crop, Rounding rounding) {
        return (int) rounded((size - crop) / 2.0, rounding);
    }

    private static double rounded(double x, Rounding rounding) {
        return switch (rounding) {
            case FLOOR -> Math.floor(x);
            case HALF_UP -> Math.floor(x + 0.5);
            case HALF_EVEN -> Math.rint(x);
        };
    }

    /** Width and height of what a step makes; zeros where they depend on the picture. */
    private static int[] sizeAfter(Step step) {
        if (step instanceof Resize resize) {
            if (resize.mode() == Mode.EXACT) {
                return checked(resize.width(), resize.height());
            }
            checked(resize.size(), resize.size());
            return new int[2];
        }
        if (step instanceof CenterCrop crop) {
            return checked(crop.width(), crop.height());
        }
        Pad pad = (Pad) step;
        return checked(pad.width(), pad.height());
    }

    private static int[] checked(int width, int height) {
        if (width < 1 || height < 1 || (long) width * height > MAX_PIXELS) {
            throw new BundleException("image processor: a step's size is " + size(width, height) + ", and 1 to "
                    + MAX_PIXELS + " pixels can be; export the bundle again");
        }
        return new int[] {width, height};
    }

    private static String size(long width, long height) {
        return width + " x " + height;
    }
}
