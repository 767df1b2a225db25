# Recurrent layers: ONNX's LSTM, GRU and RNN.

export GRUCell, LSTMCell, RNNCell, Recurrent

"""
    Recurrent(cells, reverse, outputs)

ONNX's LSTM, GRU and RNN: (x, w, r, b, lengths, h, c, p), in ONNX's order, of which those from `b` on may be absent; lengths
are ignored. `cells` are the cells of the directions, and `reverse` says which of them go from the last step to the first.
Returns as many of the outputs (all states, the last state, the last cell state) as `outputs`.

Shapes in Julia's order: `x` (features, batch, steps), `w` (features, gates * hidden, directions), states (hidden, batch,
directions).
"""
struct Recurrent
    cells::Vector{Any}
    reverse::Vector{Bool}
    outputs::Int
end

function (l::Recurrent)(x, w, r, b=nothing, lengths=nothing, h=nothing, c=nothing, p=nothing)
    hidden, batch, steps = size(r, 1), size(x, 2), size(x, 3)
    directions = length(l.cells)
    size(w, 1) == size(x, 1) && size(w, 3) == size(r, 3) == directions && size(w, 2) == size(r, 2) ||
        throw(DimensionMismatch("weights of $(size(w)) and $(size(r)) for $(size(x)) and $directions directions"))
    y = Array{Float32}(undef, hidden, batch, directions, steps)
    last_h, last_c = initial_state(h, hidden, batch, directions), initial_state(c, hidden, batch, directions)
    for d in 1:directions
        gates = size(w, 2)
        bias = b === nothing ? zeros(Float32, 2gates) : b[:, d]
        inputs = Dense(copy(transpose(w[:, :, d])), bias[1:gates])(x)
        scan!(view(y, :, :, d, :), l.cells[d], inputs, copy(transpose(r[:, :, d])), bias[gates+1:end],
              p === nothing ? nothing : p[:, d], view(last_h, :, :, d), view(last_c, :, :, d),
              l.reverse[d] ? (steps:-1:1) : (1:1:steps))
        release!(inputs)
    end
    return l.outputs == 1 ? y : (y, last_h, last_c)
end

"A copy of the state that a layer begins with, or zeros."
initial_state(state, hidden, batch, directions) =
    state === nothing ? zeros(Float32, hidden, batch, directions) : copy(state)

"""
Run one direction. `inputs` are the products of its weights with all steps, with their biases, (gates * hidden, batch,
steps), `r_bias` is the bias of the product with the state, and `p` are the peepholes. `h` and `c` are changed into the
last states.
"""
function scan!(y, cell, inputs, r, r_bias, p, h, c, order)
    batch = size(h, 2)
    state, memory = Matrix(h), Matrix(c)
    products = Matrix{Float32}(undef, size(r, 1), batch)
    for t in order
        mul!(products, r, state)
        products .+= r_bias
        step!(cell, state, memory, inputs[:, :, t], products, r, r_bias, p)
        y[:, :, t] = state
    end
    h .= state
    c .= memory
    return nothing
end

"ONNX's LSTM with the activations `f`, `g` and `h`. Its gates are input, output, forget and cell."
struct LSTMCell{F,G,H}
    f::F
    g::G
    h::H
end

# The order of the peepholes is input, output, forget.
function step!(l::LSTMCell, state, memory, inputs, products, r, r_bias, p)
    n = size(state, 1)
    peep = p === nothing ? zeros(Float32, 3n) : p
    gates = inputs .+ products
    @inbounds for column in axes(state, 2)
        @simd ivdep for k in 1:n
            old = memory[k, column]
            new = l.f(gates[2n+k, column] + peep[2n+k] * old) * old +
                l.f(gates[k, column] + peep[k] * old) * l.g(gates[3n+k, column])
            memory[k, column] = new
            state[k, column] = l.f(gates[n+k, column] + peep[n+k] * new) * l.h(new)
        end
    end
    return nothing
end

"""
ONNX's GRU with the activations `f` and `g`. Its gates are update, reset and hidden. `reset_after` applies the reset gate to
the product with the state (ONNX's linear_before_reset), not to the state.
"""
struct GRUCell{F,G}
    f::F
    g::G
    reset_after::Bool
end

function step!(l::GRUCell, state, memory, inputs, products, r, r_bias, p)
    n = size(state, 1)
    at(gate) = gate*n+1:(gate+1)*n
    update = l.f.(inputs[at(0), :] .+ products[at(0), :])
    reset = l.f.(inputs[at(1), :] .+ products[at(1), :])
    within = l.reset_after ? reset .* products[at(2), :] : r[at(2), :] * (reset .* state) .+ r_bias[at(2)]
    state .= (1 .- update) .* l.g.(inputs[at(2), :] .+ within) .+ update .* state
    return nothing
end

"ONNX's RNN with the activation `f`."
struct RNNCell{F}
    f::F
end

step!(l::RNNCell, state, memory, inputs, products, r, r_bias, p) = state .= l.f.(inputs .+ products)
