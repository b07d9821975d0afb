package dev.pocketvl.core.gallery;

/**
 * A vector in 8-bit integers: {@code scale * bytes}, and how far that may be off.
 *
 * @param bytes -127 to 127
 * @param scale of them
 * @param error length of what the code leaves out, not below it
 * @param length of the vector, not below it
 */
record VectorCode(byte[] bytes, float scale, float error, float length) {
    private static final int MOST = 127;
    private static final double ROUNDING = 1e-6; // more than doubles and their storage as floats are off by

    static VectorCode of(float[] vector) {
        float largest = 0;
        double squares = 0;
        for (float value : vector) {
            largest = Math.max(largest, Math.abs(value));
            squares += (double) value * value;
        }
        float scale = largest / MOST;
        byte[] bytes = new byte[vector.length];
        double left = 0;
        for (int i = 0; i < vector.length; i++) {
            bytes[i] = (byte) (scale == 0 ? 0 : Math.max(-MOST, Math.min(MOST, Math.round(vector[i] / scale))));
            double off = vector[i] - (double) scale * bytes[i];
            left += off * off;
        }
        return new VectorCode(bytes, scale, above(Math.sqrt(left)), above(Math.sqrt(squares)));
    }

    private static float above(double value) {
        return (float) (value * (1 + ROUNDING) + ROUNDING);
    }
}
