# LSTM, GRU and RNN against their definitions.

logistic(x) = 1 / (1 + exp(-x))

"One step of ONNX's LSTM for one picture: `W`, `R` and `b` have the gates input, output, forget and cell below each other."
function lstm_step(x, h, c, W, R, b)
    i, o, f, g = [part for part in eachcol(reshape(W * x + R * h + b, :, 4))]
    c = logistic.(f) .* c .+ logistic.(i) .* tanh.(g)
    return logistic.(o) .* tanh.(c), c
end

@testset "an LSTM of both directions, with a state at its beginning" begin
    steps, features, hidden = 5, 3, 2
    x, w, r = randn(Float32, features, 1, steps), randn(Float32, features, 4hidden, 2), randn(Float32, hidden, 4hidden, 2)
    b, h, c = randn(Float32, 8hidden, 2), randn(Float32, hidden, 1, 2), randn(Float32, hidden, 1, 2)
    expected = Array{Float32}(undef, hidden, 1, 2, steps)
    for d in 1:2
        state, memory = h[:, 1, d], c[:, 1, d]
        for t in (d == 1 ? (1:steps) : (steps:-1:1))
            state, memory = lstm_step(x[:, 1, t], state, memory, w[:, :, d]', r[:, :, d]', b[1:4hidden, d] + b[4hidden+1:end, d])
            expected[:, 1, d, t] = state
        end
    end
    run(out) = run_node("node LSTM in=x,w,r,b,-,h,c out=$out name=n direction=bidirectional " *
                        "activations=Sigmoid%2CTanh%2CTanh%2CSigmoid%2CTanh%2CTanh", x, "w" => w, "r" => r, "b" => b, "h" => h, "c" => c)
    @test agrees(run("y"), expected)
    @test agrees(run("a,y"), cat(expected[:, :, 1, end], expected[:, :, 2, 1], dims=3))
end

@testset "a GRU that resets after and before the product with its state" begin
    x, w, r, b = randn(Float32, 3, 1, 4), randn(Float32, 3, 6, 1), randn(Float32, 2, 6, 1), randn(Float32, 12, 1)
    for reset_after in 0:1
        expected, state = Array{Float32}(undef, 2, 1, 1, 4), zeros(Float32, 2)
        for t in 1:4
            z, s, n = [part for part in eachcol(reshape(w[:, :, 1]' * x[:, 1, t] + b[1:6], :, 3))]
            R, rb = r[:, :, 1]', reshape(b[7:12], 2, 3)
            update, reset = logistic.(z + R[1:2, :] * state + rb[:, 1]), logistic.(s + R[3:4, :] * state + rb[:, 2])
            within = reset_after == 1 ? reset .* (R[5:6, :] * state + rb[:, 3]) : R[5:6, :] * (reset .* state) + rb[:, 3]
            state = (1 .- update) .* tanh.(n + within) .+ update .* state
            expected[:, 1, 1, t] = state
        end
        line = "node GRU in=x,w,r,b out=y name=n direction=forward activations=Sigmoid%2CTanh linear_before_reset=$reset_after"
        @test agrees(run_node(line, x, "w" => w, "r" => r, "b" => b), expected)
    end
end

@testset "an RNN, and what it refuses" begin
    x, w, r = randn(Float32, 3, 2, 4), randn(Float32, 3, 2, 1), randn(Float32, 2, 2, 1)
    run(activations) = run_node("node RNN in=x,w,r out=y name=n direction=reverse activations=$activations", x, "w" => w, "r" => r)
    last = max.(w[:, :, 1]' * x[:, :, 4], 0)
    @test all(y -> y[:, :, 1, 4] ≈ last && all(>=(0), y), run("Relu"))
    @test occursin("Affine", message(() -> run("Affine"), F.OperatorError))
    @test occursin("2 activations", message(() -> run("Relu%2CRelu"), F.OperatorError))
end
