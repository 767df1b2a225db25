# Models that are no Chain: a struct with named layers, and a function with one line for each piece.

"""
    network_code(pieces, input, output) -> (text, weights)

The code of a struct, its method and `architecture()`, and the weights by their paths.
"""
function network_code(pieces, input, output)
    variables = Dict{String,String}(input => "x")
    layers, lines, weights, counts = String[], String[], Any[], Dict{String,Int}()
    field!(kind) = "$kind$(counts[kind] = get(counts, kind, 0) + 1)"
    for (i, piece) in enumerate(pieces)
        names = String[variables[name] for name in piece.inputs]
        if piece.layer !== nothing
            field = field!(piece.layer.kind)
            push!(layers, "$field = $(piece.layer.code),")
            isempty(piece.layer.weights) || push!(weights, Any[:layers, Symbol(field)] => piece.layer.weights)
            code = "m.$field($(names[1]))"
        else
            fields = String[]
            for array in piece.constants
                field = field!("constant")
                push!(layers, "$field = zeros32($(join(size(array), ", "))),")
                push!(weights, Any[:layers, Symbol(field)] => Pair{Symbol,Any}[Symbol() => array])
                push!(fields, "m.$field")
            end
            code = filled(piece.expression, names, fields)
        end
        variables[piece.output] = "x$i"
        push!(lines, with_comment("x$i = $code", piece.node))
    end
    # The batch is the last dimension of the input.
    body = replace(join(lines, '\n'), "⟦batch⟧" => "size(x)[end]")
    text = """
        struct Network{L}
            layers::L
        end
        Flux.@layer Network

        function (network::Network)(x)
            m = network.layers
        $(indent(body))
            return $(variables[output])
        end

        architecture() = Network((
        $(indent(join(layers, '\n')))
        ))
        """
    return text, weights
end

"An expression with the names of its inputs and constants."
function filled(expression, names, constants)
    for (i, name) in enumerate(names)
        expression = replace(expression, "⟦$i⟧" => name)
    end
    for (i, name) in enumerate(constants)
        expression = replace(expression, "⟦c$i⟧" => name)
    end
    return expression
end
