# Matrix products. A constant second input makes the layer a Dense.

operator("Gemm"; any_input=true, fuses=true) do op
    α, β = float(op, "alpha"), float(op, "beta")
    transpose_a, transpose_b = int(op, "transA") != 0, int(op, "transB") != 0
    c = length(op.inputs) >= 3 ? op.inputs[3] : nothing
    if op.inputs[1] === COMPUTED && op.inputs[2] isa Array && c !== COMPUTED && !transpose_a
        weight = scaled(α, matrix_of(op, transpose_b))
        c === nothing && return op.L.Dense(weight, false, activation(op))
        bias, out = scaled(β, constant(op, 3)), size(weight, 1)
        length(bias) == size(bias, 1) == out && return op.L.Dense(weight, vec(bias), activation(op))
        length(bias) == 1 && return op.L.Dense(weight, fill(first(bias), out), activation(op))
    end
    bind_constants(op, Gemm(α, β, transpose_a, transpose_b, activation(op)))
end

"The second input as Flux's (out, in). `transposes` is whether ONNX has it as (out, in), and Julia as (in, out)."
function matrix_of(op, transposes)
    weight = constant(op, 2)
    weight isa Matrix{Float32} || refuse(op, "the weight has $(ndims(weight)) dimensions")
    transposes || return weight
    # By a loop: permutedims takes longer to compile (JuliaLang/julia#42438) than this takes in all.
    transposed = Matrix{Float32}(undef, size(weight, 2), size(weight, 1))
    for i in 1:size(weight, 1), j in 1:size(weight, 2)
        transposed[j, i] = weight[i, j]
    end
    return transposed
end

"`α * x`, or `x` itself if `α` is 1."
scaled(α, x) = α == 1 ? x : rmul!(copy(x), α)

operator("MatMul"; any_input=true, fuses=true) do op
    op.inputs[1] === COMPUTED && op.inputs[2] isa Array{Float32,2} &&
        return op.L.Dense(op.inputs[2], false, activation(op))
    bind_constants(op, MatMul(op.L.batched_mul, activation(op)))
end

operator(op -> bind_constants(op, Einsum(op.L.batched_mul, text(op, "equation"))), "Einsum"; any_input=true)
