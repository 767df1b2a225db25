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
    eachline(x, dims) do line
        top = maximum(i -> x[i], line)
        total = 0.0f0
        for i in line
            y[i] = exp(x[i] - top)
            total += y[i]
        end
        for i in line
            y[i] /= total
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
    eachline(x, dims) do line
        top = maximum(i -> x[i], line)
        total = sum(i -> exp(x[i] - top), line)
        for i in line
            y[i] = x[i] - top - log(total)
        end
    end
    return y
end

"Call `f` with the linear indices of each line of `x` along dimension `dims`."
function eachline(f, x, dims)
    n = size(x, dims)
    step = prod(size(x)[1:dims-1])
    n == 0 && return nothing
    for block in 0:step*n:length(x)-1, first in block+1:block+step
        f(first:step:first+step*(n-1))
    end
    return nothing
end
