# Models that are a Chain: pieces one after the other, and branches that begin at one value and end at one.

"Several chains of pieces that read one value, and the piece that combines their results."
struct Branches
    chains::Vector{Vector{Any}}
    join::Piece
end

"""
    find_chain(pieces, input, output)

The pieces as a vector of [`Piece`](@ref) and [`Branches`](@ref), or `nothing` if they are no chain. A piece with constants
of its own is part of none, as only layers can hold weights.
"""
function find_chain(pieces, input, output)
    all(piece -> isempty(piece.constants) && !occursin("⟦batch⟧", piece.expression), pieces) || return nothing
    readers = Dict{String,Int}(output => 1)
    foreach(piece -> foreach(name -> readers[name] = get(readers, name, 0) + 1, piece.inputs), pieces)
    # For each value the last one before it that several pieces read, and the pieces from there to here.
    paths = Dict{String,Tuple{String,Vector{Any}}}(input => (input, []))
    path_from(name) = readers[name] == 1 ? paths[name] : (name, [])
    for piece in pieces
        all(name -> haskey(paths, name), piece.inputs) || return nothing
        if length(piece.inputs) == 1
            source, items = path_from(piece.inputs[1])
            paths[piece.output] = (source, [items; piece])
            continue
        end
        branches = map(path_from, piece.inputs)
        source = branches[1][1]
        all(branch -> branch[1] == source, branches) || return nothing
        readers[source] -= length(branches) - 1
        before, items = path_from(source)
        paths[piece.output] = (before, [items; Branches([branch[2] for branch in branches], piece)])
    end
    return get(readers, output, 0) == 1 && paths[output][1] == input ? paths[output][2] : nothing
end

const COMMUTATIVE = ("+", ".+", ".*")

"The code of a chain. Adds to `weights` the weights of each layer with the path to it."
function chain_code(items, path, weights)
    lines = [item_code(item, [path; i], weights) for (i, item) in enumerate(items)]
    return string("Chain(\n", join(map(indent, lines), '\n'), "\n)")
end

"A branch: `identity`, one layer, or a chain."
function branch_code(items, path, weights)
    isempty(items) && return "identity", ""
    length(items) == 1 || return chain_code(items, path, weights), ""
    return split_comment(item_code(items[1], path, weights))
end

"One layer with a comma, and the name of its node as a comment."
item_code(piece::Piece, path, weights) = with_comment(layer_code(piece, path, weights) * ",", piece.node)

with_comment(code, node) = isempty(node.name) ? code : "$code  # $(comment(node.name))"

function split_comment(line)
    parts = split(line, ",  # "; limit=2)
    return length(parts) == 2 && !occursin('\n', parts[1]) ? (String(parts[1]), "  # " * parts[2]) : (String(rstrip(line, ',')), "")
end

function layer_code(piece, path, weights)
    if piece.layer !== nothing
        isempty(piece.layer.weights) || push!(weights, path => piece.layer.weights)
        return piece.layer.code
    end
    isempty(piece.name) || return piece.name
    return "x -> $(filled(piece.expression, ["x"], String[]))"
end

function item_code(item::Branches, path, weights)
    empty_branch = findfirst(isempty, item.chains)
    name = item.join.name
    if length(item.chains) == 2 && name in COMMUTATIVE && empty_branch !== nothing
        branch, remark = branch_code(item.chains[3-empty_branch], [path; :layers], weights)
        lines = [branch * "," * remark, name]
        head = "SkipConnection("
    else
        letters = ["x$i" for i in 1:length(item.chains)]
        connection = isempty(name) ? "($(join(letters, ", "))) -> $(filled(item.join.expression, letters, String[]))" : name
        branches = [branch_code(chain, [path; :layers; i], weights) for (i, chain) in enumerate(item.chains)]
        lines = [connection * ","; [code * "," * remark for (code, remark) in branches]]
        head = "Parallel("
    end
    return with_comment(string(head, '\n', join(map(indent, lines), '\n'), "\n),"), item.join.node)
end
