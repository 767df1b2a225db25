# ONNX's Einsum.

export Einsum

"""
    Einsum(multiply, equation)

NumPy's einsum. Tensors are contracted pair by pair, as batches of matrix products; `multiply` is the backend's
`batched_mul`. Throws `ArgumentError` for a malformed equation.

`terms` are the labels of each tensor, and `result` those of the result, or `nothing` if the equation has no `->`. In both,
`'.'` stands for an ellipsis.
"""
struct Einsum{M}
    multiply::M
    terms::Vector{String}
    result::Union{String,Nothing}
end

function Einsum(multiply, equation::String)
    sides = split(replace(replace(equation, ' ' => ""), "..." => "."), "->")
    terms = String.(split(sides[1], ','))
    all(term -> all(c -> isletter(c) || c == '.', term) && count(==('.'), term) <= 1, [terms; sides[2:end]]) &&
        length(sides) <= 2 || throw(ArgumentError("the equation '$equation' is malformed"))
    return Einsum(multiply, terms, length(sides) == 2 ? String(sides[2]) : nothing)
end

function (e::Einsum)(xs...)
    length(xs) == length(e.terms) || throw(DimensionMismatch("$(length(e.terms)) terms for $(length(xs)) tensors"))
    ellipsis_rank = Int[ndims(x) - count(!=('.'), term) for (x, term) in zip(xs, e.terms)]
    labels = [labels_of(term, n) for (term, n) in zip(e.terms, ellipsis_rank)]
    all(length(l) == ndims(x) for (x, l) in zip(xs, labels)) ||
        throw(DimensionMismatch("the terms $(join(e.terms, ',')) do not fit tensors of $(map(ndims, xs)) dimensions"))
    sizes = label_sizes(xs, labels)
    result = labels_of(e.result === nothing ? open_result(e.terms) : e.result, maximum(ellipsis_rank))
    x, x_labels = first(xs), first(labels)
    for i in 2:length(xs)
        x, x_labels = contract(e.multiply, x, x_labels, xs[i], labels[i], union(result, labels[i+1:end]...), sizes)
    end
    x, x_labels = sum_out(x, x_labels, result, sizes)
    return permuted_to(x, x_labels, result, sizes)
end

"""
The label of each dimension, in Julia's order. The dimensions of an ellipsis have numbers as labels, from the last one
on.
"""
labels_of(term, ellipsis_rank) = reverse(vcat(Char[], (c == '.' ? Char.(max(ellipsis_rank, 0):-1:1) : [c] for c in term)...))

"The result of an equation without `->`: the ellipsis, then the letters that occur once, in alphabetical order."
function open_result(terms)
    all_letters = filter(!=('.'), join(terms))
    once = sort(filter(c -> count(==(c), all_letters) == 1, collect(all_letters)))
    return (any(term -> '.' in term, terms) ? "." : "") * join(once)
end

"The size of each label. Throws `DimensionMismatch` if tensors have different ones."
function label_sizes(xs, labels)
    sizes = Dict{Char,Int}()
    for (x, x_labels) in zip(xs, labels), (d, label) in enumerate(x_labels)
        known = get(sizes, label, 1)
        sizes[label] = broadcast_length(known, size(x, d), [known], [size(x, d)])
    end
    return sizes
end

"`x` with its dimensions in the order of the labels `wanted`. A label that occurs twice selects the diagonal."
function permuted_to(x, x_labels, wanted, sizes)
    steps = contiguous_strides(shape_of(x))
    along(label) = sum(Int[steps[d] for d in 1:ndims(x) if x_labels[d] == label && size(x, d) != 1])
    return copy_strided(x, Int[sizes[label] for label in wanted], Int[along(label) for label in wanted])
end

"Sum `x` over the labels that are not in `keep`. Return the result and its labels."
function sum_out(x, x_labels, keep, sizes)
    labels = unique(x_labels)
    gone = Int[-d for (d, label) in enumerate(labels) if !(label in keep)]
    isempty(gone) && return x, x_labels
    y = Reduction(identity, +, zero, keep_total, false, true)(permuted_to(x, x_labels, labels, sizes), gone)
    return y, filter(in(keep), labels)
end

"The product of `x` and `y`, summed over the labels that are not in `keep`. Return it and its labels."
function contract(multiply, x, x_labels, y, y_labels, keep, sizes)
    x, x_labels = sum_out(x, x_labels, union(keep, y_labels), sizes)
    y, y_labels = sum_out(y, y_labels, union(keep, x_labels), sizes)
    both = intersect(x_labels, y_labels)
    batch, inner = filter(in(keep), both), filter(!in(keep), both)
    left, right = setdiff(y_labels, both), setdiff(x_labels, both)
    flat(labels) = prod(Int[sizes[label] for label in labels])
    a = reshape(permuted_to(y, y_labels, [left; inner; batch], sizes), flat(left), flat(inner), flat(batch))
    b = reshape(permuted_to(x, x_labels, [inner; right; batch], sizes), flat(inner), flat(right), flat(batch))
    labels = [left; right; batch]
    return reshape(multiply(a, b), Tuple(Int[sizes[label] for label in labels])), labels
end
