# LSTM, GRU and RNN.

operator("LSTM"; any_input=true, any_output=true) do op
    recurrent(op, 3) do f, g, h
        LSTMCell(f, g, h)
    end
end

operator("GRU"; any_input=true, any_output=true) do op
    reset_after = int(op, "linear_before_reset") == 1
    recurrent(op, 2) do f, g
        GRUCell(f, g, reset_after)
    end
end

operator(op -> recurrent(RNNCell, op, 1), "RNN"; any_input=true, any_output=true)

"The [`Recurrent`](@ref) whose cells are made by `cell` of so many `activations`."
function recurrent(cell, op, activations)
    direction = text(op, "direction")
    reverse = direction == "bidirectional" ? [false, true] : [direction == "reverse"]
    names = split(text(op, "activations"), ',')
    length(names) == activations * length(reverse) || refuse(op, "$(length(names)) activations")
    functions = Any[recurrent_activation(op, name) for name in names]
    cells = Any[cell(functions[d*activations-activations+1:d*activations]...) for d in eachindex(reverse)]
    return bind_constants(op, Recurrent(cells, reverse, op.outputs))
end

function recurrent_activation(op, name)
    name == "Sigmoid" && return op.L.sigmoid
    name == "Tanh" && return op.L.tanh_fast
    name == "Relu" && return op.L.relu
    name == "HardSigmoid" && return HardSigmoid(0.2f0, 0.5f0)
    refuse(op, "the activation '$name' is not known")
end
