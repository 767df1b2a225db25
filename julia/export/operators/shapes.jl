# Operators that reorder, select and reshape. Sizes and indices are those that the trace found.

"The sizes to give to `reshape`: numbers, and `:` for the dimension that grows with the number of pictures."
function reshape_sizes(site, sizes=site.sizes)
    varying = findall(sizes[1] .!= sizes[2])
    length(varying) <= 1 || cannot(site, "several dimensions of its result depend on the number of pictures")
    return join([d in varying ? ":" : string(n) for (d, n) in enumerate(sizes[1])], ", ")
end

function reshape!(site)
    x, sizes = value(site), site.sizes
    site.arguments = Any[x]
    x.sizes == sizes && return pass!(site)
    flat = length(sizes[1]) == 2 && [s[end] for s in sizes] == [s[end] for s in x.sizes]
    flat && return expression!(site, "Flux.flatten($(operand!(site, 1)))", "Flux.flatten")
    expression!(site, "reshape($(operand!(site, 1)), $(reshape_sizes(site)))")
end
writes(reshape!, "Reshape", "Flatten", "Squeeze", "Unsqueeze")

writes("Transpose") do site
    perm = ints(site.op, "perm")
    n = length(perm)
    order = Tuple(Int[n - perm[n-d+1] for d in 1:n])
    order == Tuple(1:n) ? pass!(site) : expression!(site, "permutedims($(operand!(site, 1)), $(literal(order)))")
end

writes("Concat") do site
    length(site.arguments) == 1 && return pass!(site)
    code = join([operand!(site, i) for i in 1:length(site.arguments)], ", ")
    expression!(site, "cat($code; dims=$(dimension(length(site.sizes[1]), int(site.op, "axis"))))")
end

"The elements of a slice of a dimension of size `n`, from 1."
function slice_range(n, start, stop, step)
    from_front(at) = at < 0 ? at + n : at
    first = clamp(from_front(start), 0, step > 0 ? n : n - 1)
    past = step > 0 ? clamp(from_front(stop), 0, n) : clamp(from_front(stop), -1, n - 1)
    return range(first + 1; step=step, length=max(0, cld(past - first, step)))
end

range_text(r) = step(r) == 1 ? "$(first(r)):$(last(r))" : "$(first(r)):$(step(r)):$(last(r))"

"Index the first input with one text for each dimension."
indexed(site, indices) = "$(operand!(site, 1))[$(join(indices, ", "))]"

writes("Slice") do site
    x = value(site)
    numbers(i) = site.arguments[i] isa Array ? Int.(vec(site.arguments[i])) : cannot(site, "input $i depends on the picture")
    starts, ends = numbers(2), numbers(3)
    axes = given(site, 4) ? numbers(4) : collect(0:length(starts)-1)
    steps = given(site, 5) ? numbers(5) : ones(Int, length(starts))
    indices = fill(":", length(x.sizes[1]))
    for (start, stop, axis, step) in zip(starts, ends, axes, steps)
        d = dimension(length(x.sizes[1]), axis)
        one, other = (slice_range(s[d], start, stop, step) for s in x.sizes)
        one == 1:x.sizes[1][d] && other == 1:x.sizes[2][d] && continue
        one == other || cannot(site, "it selects among the pictures")
        indices[d] = range_text(one)
    end
    all(==(":"), indices) ? pass!(site) : expression!(site, indexed(site, indices))
end

writes("Gather") do site
    x = value(site)
    chosen = site.arguments[2]
    # PyTorch writes a reshaped view as a choice of all numbers in their order.
    all_in_order = chosen isa Unequal && length(x.sizes[1]) == 1 && all(i -> vec(chosen.arrays[i]) == 0:x.sizes[i][1]-1, 1:2)
    all_in_order && return reshape!(site)
    chosen isa Array || cannot(site, "its indices depend on the picture")
    d = dimension(length(x.sizes[1]), int(site.op, "axis"))
    x.sizes[1][d] == x.sizes[2][d] || cannot(site, "it selects among the pictures")
    places = mod.(Int.(chosen), x.sizes[1][d]) .+ 1
    ndims(places) <= 1 || cannot(site, "its indices have $(ndims(places)) dimensions")
    indices = fill(":", length(x.sizes[1]))
    indices[d] = ndims(places) == 0 ? string(places[]) : literal(vec(places))
    expression!(site, indexed(site, indices))
end

writes("Split") do site
    x = value(site)
    d = dimension(length(x.sizes[1]), int(site.op, "axis"))
    n, outputs = x.sizes[1][d], site.op.node.outputs
    n == x.sizes[2][d] || cannot(site, "it splits the pictures of a batch")
    if given(site, 2)
        site.arguments[2] isa Array || cannot(site, "its sizes are computed")
        sizes = Int.(vec(site.arguments[2]))
    else
        count = int(site.op, "num_outputs", length(outputs))
        sizes = [clamp(n - cld(n, count) * i, 0, cld(n, count)) for i in 0:count-1]
    end
    start = 0
    for (output, size) in zip(site.outputs, sizes)
        indices = fill(":", length(x.sizes[1]))
        indices[d] = "$(start + 1):$(start + size)"
        output == "-" || expression!(site, indexed(site, indices), ""; output=output)
        start += size
    end
end

writes("Expand") do site
    x = value(site)
    x.sizes == site.sizes && return pass!(site)
    rank = length(site.sizes[1])
    sizes = vcat(x.sizes[1], ones(Int, rank - length(x.sizes[1])))
    times = [site.sizes[1][d] ÷ sizes[d] for d in 1:rank]
    all(d -> sizes[d] == site.sizes[1][d] || site.sizes[1][d] == site.sizes[2][d], 1:rank) || cannot(site, "it repeats by the number of pictures")
    expression!(site, "repeat($(operand!(site, 1)), $(join(times, ", ")))")
end

writes("Tile") do site
    x = value(site)
    times = [site.sizes[1][d] ÷ x.sizes[1][d] for d in 1:length(x.sizes[1])]
    all(d -> site.sizes[2][d] == times[d] * x.sizes[2][d], 1:length(times)) || cannot(site, "it repeats by the number of pictures")
    all(isone, times) ? pass!(site) : expression!(site, "repeat($(operand!(site, 1)), $(join(times, ", ")))")
end

writes("Pad") do site
    x, mode = value(site), text(site.op, "mode")
    site.arguments[2] isa Array || cannot(site, "its pads are computed")
    axes = given(site, 4) ? Int.(vec(site.arguments[4])) : nothing
    before, after = OnnxLayers.pads_of(zeros(Float32, x.sizes[1]...), Int.(vec(site.arguments[2])), axes)
    all(iszero, before) && all(iszero, after) && return pass!(site)
    all(>=(0), before) && all(>=(0), after) || cannot(site, "its pads are negative")
    amounts = literal(Tuple(Int[isodd(i) ? before[cld(i, 2)] : after[cld(i, 2)] for i in 1:2length(before)]))
    fill_value = given(site, 3) ? operand!(site, 3) : "0f0"
    mode == "constant" && return expression!(site, "pad_constant($(operand!(site, 1)), $amounts, $fill_value)")
    # NNlib pads the first dimensions and leaves the channels and the batch alone.
    spatial_dims = length(before) - 2
    all(iszero, before[end-1:end]) && all(iszero, after[end-1:end]) || cannot(site, "it pads channels or pictures")
    amounts = literal(Tuple(Int[isodd(i) ? before[cld(i, 2)] : after[cld(i, 2)] for i in 1:2spatial_dims]))
    name = get(Dict("reflect" => "pad_reflect", "edge" => "pad_repeat", "wrap" => "pad_circular"), mode, "")
    isempty(name) && cannot(site, "its mode is $mode")
    expression!(site, "$name($(operand!(site, 1)), $amounts)")
end

writes("Resize", "Upsample") do site
    op, x, y = site.op, value(site).sizes[1], site.sizes[1]
    site.arguments = site.arguments[1:1]
    x == y && return pass!(site)
    mode = text(op, "mode")
    coordinates = op.node.operator == "Upsample" ? "asymmetric" : text(op, "coordinate_transformation_mode")
    n = length(x) - 2
    x[end-1:end] == y[end-1:end] || cannot(site, "it resizes channels")
    op.node.operator == "Upsample" || int(op, "antialias") == 0 || cannot(site, "it has antialias")
    if mode == "nearest" && all(d -> y[d] % x[d] == 0, 1:n) && coordinates in ("asymmetric", "half_pixel", "pytorch_half_pixel")
        return expression!(site, "upsample_nearest($(operand!(site, 1)), $(literal(Tuple(y[1:n] .÷ x[1:n]))))")
    elseif mode == "linear" && n == 2 && coordinates in ("half_pixel", "pytorch_half_pixel", "align_corners")
        aligned = coordinates == "align_corners" ? "" : ", align_corners=false"
        return expression!(site, "upsample_bilinear($(operand!(site, 1)); size=$(literal(Tuple(y[1:n])))$aligned)")
    end
    cannot(site, "Flux does not resize by mode $mode and $coordinates from $(Tuple(x[1:n])) to $(Tuple(y[1:n]))")
end

"Reshape, permute and reshape again, as in moving pixels to channels."
rearranged(x, before, order, after) = "reshape(permutedims(reshape($x, $before), $(literal(order))), $after)"

writes("SpaceToDepth") do site
    (w, h, c), b = value(site).sizes[1][1:3], int(site.op, "blocksize")
    order = text(site.op, "mode") == "CRD" ? (2, 4, 1, 3, 5, 6) : (2, 4, 5, 1, 3, 6)
    expression!(site, rearranged(operand!(site, 1), "$b, $(w ÷ b), $b, $(h ÷ b), $c, :", order, "$(w ÷ b), $(h ÷ b), $(c * b^2), :"))
end

writes("DepthToSpace") do site
    (w, h, c), b = value(site).sizes[1][1:3], int(site.op, "blocksize")
    rest, crd = c ÷ b^2, text(site.op, "mode") == "CRD"
    before = crd ? "$w, $h, $b, $b, $rest, :" : "$w, $h, $rest, $b, $b, :"
    order = crd ? (3, 1, 4, 2, 5, 6) : (4, 1, 5, 2, 3, 6)
    expression!(site, rearranged(operand!(site, 1), before, order, "$(w * b), $(h * b), $rest, :"))
end
