# Activations of one number, by NNlib's names (NNlib's src/activations.jl), and softmax.

relu(x) = ifelse(x < 0, zero(x), x)
leakyrelu(x, a=0.01f0) = ifelse(x > 0, x, oftype(x, a) * x)
elu(x, α=1) = ifelse(x >= 0, x, oftype(x, α) * expm1(x))

function sigmoid(x)
    t = exp(-abs(x))
    return ifelse(x >= 0, inv(1 + t), t / (1 + t))
end

"""
    softmax(x; dims = 1)

`exp.(x) ./ sum(exp.(x), dims = dims)` along one dimension, without overflow.
"""
function softmax(x::Array{Float32}; dims=1)
    y = similar(x)
    for line in lines_along(x, dims)
        top, total = top_and_total(x, line)
        for i in line
            y[i] = exp(x[i] - top) / total
        end
    end
    return y
end

"""
    logsoftmax(x; dims = 1)

`log.(softmax(x; dims = dims))`, exact for small probabilities too.
"""
function logsoftmax(x::Array{Float32}; dims=1)
    y = similar(x)
    for line in lines_along(x, dims)
        top, total = top_and_total(x, line)
        for i in line
            y[i] = x[i] - top - log(total)
        end
    end
    return y
end

"The largest number of a line, and the sum of the exponentials of all when that is subtracted."
function top_and_total(x, line)
    top, total = -Inf32, 0.0f0
    for i in line
        top = max(top, x[i])
    end
    for i in line
        total += exp(x[i] - top)
    end
    return top, total
end

"The linear indices of each line of `x` along dimension `dims`."
function lines_along(x, dims)
    n, step = size(x, dims), stride(x, dims)
    return StepRange{Int,Int}[first:step:first+step*(n-1) for block in 0:step*n:length(x)-1 for first in block+1:block+step]
end
