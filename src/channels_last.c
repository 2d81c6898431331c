/* ReLU with batch normalisation, and max pooling, of bfloat16 activations with the channels last: (pixels, channels) in memory.

   PyTorch's own kernels are fast in this order only where the channels fill whole vectors. These take 16 pixels as one row, which
   does with any number of channels, and go over the activations twice where PyTorch goes three times. Sums are taken over a
   fixed number of parts, so that the result does not depend on the number of threads. */

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define MIN(a, b) ((a) < (b) ? (a) : (b))
enum { PARTS = 64, ROW = 16 };  /* parts of a sum, pixels of a row */

typedef uint16_t bfloat16;

static inline float load(bfloat16 x)
{
    uint32_t bits = (uint32_t)x << 16;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static inline bfloat16 rounded(float x)  /* to nearest, ties to even */
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}

static inline float relu(float x)  /* not a number stays so, and the loss shows it */
{
    return x < 0 ? 0 : x;
}

static inline int above(bfloat16 x, bfloat16 y)  /* as not a number is above everything */
{
    return (load(x) > load(y)) | (load(x) != load(x));
}

/* Per channel, with r = relu(x): the sums of g and of g r; without g, of r and of r r. */
static void sums(const bfloat16 *x, const bfloat16 *g, long pixels, long channels, double *sum, double *product)
{
    long width = ROW * channels, rows = (pixels + ROW - 1) / ROW;
    float (*partial)[2][width] = calloc(PARTS, sizeof *partial);
    #pragma omp parallel for schedule(static)
    for (long part = 0; part < PARTS; part++) {
        float *one = partial[part][0], *two = partial[part][1];
        for (long row = part * rows / PARTS; row < (part + 1) * rows / PARTS; row++) {
            long start = row * width, count = MIN(width, pixels * channels - start);
            for (long i = 0; i < count; i++) {
                float r = relu(load(x[start + i])), v = g ? load(g[start + i]) : r;
                one[i] += v;
                two[i] += v * r;
            }
        }
    }
    for (long channel = 0; channel < channels; channel++) {
        sum[channel] = product[channel] = 0;
        for (long part = 0; part < PARTS; part++)
            for (long i = channel; i < width; i += channels) {
                sum[channel] += partial[part][0][i];
                product[channel] += partial[part][1][i];
            }
    }
    free(partial);
}

/* y = weight (relu(x) - mean) / deviation + bias; `mean` and `inverse`, that of the deviation, are kept for the way back. */
void norm_forward(const bfloat16 *x, bfloat16 *y, const float *weight, const float *bias, float *running_mean,
                  float *running_variance, float *mean, float *inverse, long pixels, long channels, float momentum, float eps)
{
    long width = ROW * channels, rows = (pixels + ROW - 1) / ROW;
    double sum[channels], square[channels];
    float scale[width], shift[width];
    sums(x, NULL, pixels, channels, sum, square);
    for (long c = 0; c < channels; c++) {
        double average = sum[c] / pixels, variance = fmax(square[c] / pixels - average * average, 0);
        mean[c] = average;
        inverse[c] = 1 / sqrt(variance + eps);
        running_mean[c] += momentum * (average - running_mean[c]);
        running_variance[c] += momentum * (variance * pixels / (pixels - 1) - running_variance[c]);
    }
    for (long i = 0; i < width; i++) {
        scale[i] = weight[i % channels] * inverse[i % channels];
        shift[i] = bias[i % channels] - mean[i % channels] * scale[i];
    }
    #pragma omp parallel for schedule(static)
    for (long row = 0; row < rows; row++) {
        long start = row * width, count = MIN(width, pixels * channels - start);
        for (long i = 0; i < count; i++)
            y[start + i] = rounded(relu(load(x[start + i])) * scale[i] + shift[i]);
    }
}

/* From the gradient g of y those of x, weight and bias. */
void norm_backward(const bfloat16 *g, const bfloat16 *x, bfloat16 *grad_x, const float *weight, const float *mean,
                   const float *inverse, float *grad_weight, float *grad_bias, long pixels, long channels)
{
    long width = ROW * channels, rows = (pixels + ROW - 1) / ROW;
    double sum[channels], product[channels];
    float a[width], b[width], c[width];  /* grad_x = a g + b x + c where x > 0, else 0 */
    sums(x, g, pixels, channels, sum, product);
    for (long i = 0; i < channels; i++) {
        grad_bias[i] = sum[i];
        grad_weight[i] = (product[i] - mean[i] * sum[i]) * inverse[i];
    }
    for (long i = 0; i < width; i++) {
        long channel = i % channels;
        a[i] = weight[channel] * inverse[channel];
        b[i] = -a[i] * inverse[channel] * grad_weight[channel] / pixels;
        c[i] = -a[i] * grad_bias[channel] / pixels - b[i] * mean[channel];
    }
    #pragma omp parallel for schedule(static)
    for (long row = 0; row < rows; row++) {
        long start = row * width, count = MIN(width, pixels * channels - start);
        for (long i = 0; i < count; i++) {
            float r = load(x[start + i]);
            grad_x[start + i] = r > 0 ? rounded(a[i] * load(g[start + i]) + b[i] * r + c[i]) : 0;
        }
    }
}

/* The largest of each 2 × 2 pixels, the first of equals, and which of the four it is; `height` and `width` are those of y. */
void pool_forward(const bfloat16 *x, bfloat16 *y, uint8_t *which, long images, long height, long width, long channels)
{
    long length = 2 * width * channels;
    #pragma omp parallel for schedule(static)
    for (long line = 0; line < images * height; line++) {
        const bfloat16 *top = x + 2 * line * length, *bottom = top + length;
        bfloat16 larger[length];
        uint8_t lower[length];
        for (long i = 0; i < length; i++) {
            lower[i] = above(bottom[i], top[i]);
            larger[i] = lower[i] ? bottom[i] : top[i];
        }
        for (long column = 0; column < width; column++)
            for (long channel = 0; channel < channels; channel++) {
                long left = 2 * column * channels + channel, right = left + channels;
                int equal = load(larger[left]) == load(larger[right]);
                int second = above(larger[right], larger[left]) | (equal & (lower[left] > lower[right]));
                long at = line * width * channels + column * channels + channel;
                y[at] = larger[left + channels * second];
                which[at] = 2 * lower[left + channels * second] + second;
            }
    }
}

/* From the gradient g of y that of x. */
void pool_backward(const bfloat16 *g, const uint8_t *which, bfloat16 *grad_x, long images, long height, long width, long channels)
{
    long length = 2 * width * channels;
    #pragma omp parallel for schedule(static)
    for (long line = 0; line < images * height; line++) {
        bfloat16 *top = grad_x + 2 * line * length, *bottom = top + length;
        for (long column = 0; column < width; column++)
            for (long channel = 0; channel < channels; channel++) {
                long left = 2 * column * channels + channel, right = left + channels;
                long at = line * width * channels + column * channels + channel;
                top[left] = g[at] & -(which[at] == 0);
                top[right] = g[at] & -(which[at] == 1);
                bottom[left] = g[at] & -(which[at] == 2);
                bottom[right] = g[at] & -(which[at] == 3);
            }
    }
}
