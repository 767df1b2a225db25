# The command lines of worker.jl and flux_model.jl. The functions throw UsageError for a wrong one.

"""
    read_options(arguments, names) -> (positional, options)

Split a command line into positional arguments and a dictionary of options, given as `--name value` or `--name=value`
in any order. Throws [`UsageError`](@ref) for a name that is not in `names`.
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

"""
    worker_options(arguments) -> (input, output, shared, backend, device, compiled)

Parse the command line of worker.jl into a named tuple. The first three are file descriptors; `shared` may be `nothing`.
"""
function worker_options(arguments)
    positional, options = read_options(arguments, ("in", "out", "shared", "backend", "device", "compiled"))
    isempty(positional) || throw(UsageError("unexpected argument '$(positional[1])'"))
    descriptor(name) = begin
        number = tryparse(Int, get(options, name, ""))
        number === nothing || number < 0 ? throw(UsageError("--$name needs the number of a file descriptor")) : number
    end
    return (input=descriptor("in"), output=descriptor("out"),
            shared=haskey(options, "shared") ? descriptor("shared") : nothing,
            backend=get(options, "backend", "auto"), device=get(options, "device", "auto"),
            compiled=get(options, "compiled", ""))
end

"""
    one_shot_options(arguments) -> (graph, image, backend, device)

Parse the command line of flux_model.jl into a named tuple. The first two are paths.
"""
function one_shot_options(arguments)
    positional, options = read_options(arguments, ("backend", "device"))
    length(positional) == 2 || throw(UsageError("usage: flux_model.jl MODEL.graph IMAGE.npy [--backend auto|flux|plain] [--device auto|cpu|gpu]"))
    return (graph=positional[1], image=positional[2],
            backend=get(options, "backend", "auto"), device=get(options, "device", "auto"))
end

"""
    print_predictions(io, options, backend)

Run the model on the .npy file and print a line of numbers for each picture. `options` are those of
[`one_shot_options`](@ref). An array of three dimensions is a batch of one. Throws any [`WorkerError`](@ref).
"""
function print_predictions(io, options, backend)
    model = build!(read_graph(options.graph), backend)
    x = read_npy(options.image)
    ndims(x) == 3 && (x = reshape(x, size(x)..., 1))
    y = predict(model, x)
    for picture in eachcol(reshape(y, :, size(y, ndims(y))))
        println(io, join(picture, ' '))
    end
end
