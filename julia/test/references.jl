# References for the tests: ONNX's definitions as plain loops. Attributes are in ONNX's order, height before width.

"ONNX's Conv of `x`, (W, H, C, N), with the kernel `w`, (kw, kh, C ÷ group, out), and the bias `b`."
function conv_reference(x, w, b; strides=(1, 1), pads=(0, 0, 0, 0), dilations=(1, 1), group=1)
    kw, kh, share, out = size(w)
    span(i, n, k) = (n + pads[i] + pads[i+2] - dilations[i] * (k - 1) - 1) ÷ strides[i] + 1
    y = zeros(Float32, span(2, size(x, 1), kw), span(1, size(x, 2), kh), out, size(x, 4))
    for at in CartesianIndices(y)
        column, row, o, n = Tuple(at)
        total = Float64(b[o])
        for c in 1:share, j in 1:kh, i in 1:kw
            px = (column - 1) * strides[2] - pads[2] + (i - 1) * dilations[2] + 1
            py = (row - 1) * strides[1] - pads[1] + (j - 1) * dilations[1] + 1
            if 1 <= px <= size(x, 1) && 1 <= py <= size(x, 2)
                total += x[px, py, (o-1)÷(out÷group)*share+c, n] * w[i, j, c, o]
            end
        end
        y[at] = total
    end
    return y
end

"An array of numbers between -1 and 1, the same ones in every run and every version of Julia."
numbers(dims...) = reshape(Float32[sin(1.7 * i * i + 0.3 * i) for i in 1:prod(dims)], dims...)
