# The command lines of the two scripts.

"""
    read_options(arguments, names) -> (positional, options)

`--name value` or `--name=value` for the given names, in any order.
"""
function read_options(arguments, names)
    positional, options = String[], Dict{String,String}()
    rest = copy(arguments)
    while !isempty(rest)
        argument = popfirst!(rest)
        if !startswith(argument, "--")
            push!(positional, argument)
            continue
        end
        parts = split(argument[3:end], '=', limit=2)
        parts[1] in names || throw(UsageError("unknown option --$(parts[1])"))
        length(parts) == 2 || !isempty(rest) || throw(UsageError("--$(parts[1]) needs a value"))
        options[parts[1]] = length(parts) == 2 ? parts[2] : popfirst!(rest)
    end
    return positional, options
end

"The options of worker.jl: `(input, output, shared, backend, device)`, the first three being descriptors, `shared` perhaps none."
function worker_options(arguments)
    positional, options = read_options(arguments, ("in", "out", "shared", "backend", "device"))
    isempty(positional) || throw(UsageError("unexpected argument '$(positional[1])'"))
    descriptor(name) = begin
        number = tryparse(Int, get(options, name, ""))
        number === nothing || number < 0 ? throw(UsageError("--$name needs the number of a file descriptor")) : number
    end
    return (input=descriptor("in"), output=descriptor("out"),
            shared=haskey(options, "shared") ? descriptor("shared") : nothing,
            backend=get(options, "backend", "auto"), device=get(options, "device", "auto"))
end

"The options of flux_model.jl: `(graph, image, backend, device)`, the first two being paths."
function one_shot_options(arguments)
    positional, options = read_options(arguments, ("backend", "device"))
    length(positional) == 2 || throw(UsageError("usage: flux_model.jl MODEL.graph IMAGE.npy [--backend auto|flux|plain] [--device auto|cpu|gpu]"))
    return (graph=positional[1], image=positional[2],
            backend=get(options, "backend", "auto"), device=get(options, "device", "auto"))
end

"""
    print_predictions(io, options, backend)

What flux_model.jl does: a line of numbers for each picture of the .npy file.
"""
function print_predictions(io, options, backend)
    model = build(read_graph(read(options.graph)), backend)
    x = read_npy(options.image)
    ndims(x) == 3 && (x = reshape(x, size(x)..., 1))
    y = predict(model, x)
    for picture in eachcol(reshape(y, :, size(y, ndims(y))))
        println(io, join(picture, ' '))
    end
end
