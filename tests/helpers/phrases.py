"""The lists that `helpers.words` uses: phrases and old names that must not come back, and first words of docstrings."""

from __future__ import annotations

# a regular expression, a space for any white space → what to write instead
PHRASES = {
    r"who asks": "name the subject: the caller, the planner, a worker",
    r"(?:for|to|of|by|as|and) who": "name the subject: the caller, the planner, a worker",
    r"what (?:is|are) (?-i:none)": "say what it is not: 'not an integer', 'not a tar file'",
    r"(?<!there\s)(?<!what\s)(?:is|are) (?-i:none)(?! of)": "say what it is not: 'not an integer'; or write None",
    r"of which (?-i:none)": "say what is missing",
    r"(?-i:none) any more": "say what it is now",
    r"as it is": "name the state: 'unchanged', 'uncompressed'; or leave it out",
    r"as they are": "name the state: 'unchanged', 'uncompressed'; or leave it out",
    r"as they come": "say the order: 'in arrival order'",
    r"as without": "say what does not change: 'fill is unaffected'",
    r"those that": "name them: 'the images that', 'the workers that'",
    r"told of": "say who learns what: 'receives', 'reports'",
    r"cannot be told": "say what cannot be done",
    r"at hand": "name it: 'the current batch'",
    r"(?:of|to|for) one's own": "write 'a custom …' or 'your …'",
    r"so many": "give the number or its name: 'this many', '`limit` samples'",
    r"what happens to what": "name both: 'how each fault is handled'",
    r"what such an?": "name the subject: 'batches these models cannot take'",
    r"to speak of": "write 'noticeable', or give the figure",
    r"can eat": "write what it does: 'trains on', 'reads'",
    r"looked at": "say what is done: 'read', 'decoded', 'displayed'",
    r"(?:are|is|was|were) asked for": "write 'requested', 'read' or 'imported'",
    r"whatever \S+ says": "write 'even with `option=value`'",
    r"a whole one": "repeat the noun: 'a new epoch'",
    r"comes? to (?:no|nothing)": "say what is missing: 'produced no batch'",
}
# names that were given up, in prose and in code: a regular expression, whose case counts → the word that took its place
OLD_NAMES = {
    r"[Tt]ape": "byte reader",
    r"[Tt]ickets?": "in-flight assignment",
    r"UnderWay|under_way": "InFlight, or in flight",
    r"Rings?": "slot pool",
    r"[Pp]arcels?": "shared batch",
    r"Board": "StatusBoard",
    r"[Pp]assengers?": "inline sample",
    r"Placing|placings": "sample decision",
    r"Spots?|spots": "placed image, or part of a file",
    r"Supply": "EpochSamples",
    r"ListedSource": "index source",
    r"WorkerStreams": "planning in workers",
    r"[Hh]ushed": "captured warnings",
    r"barren|fruitful|fruitless": "empty, or nothing_usable",
    r"blown": "too_many_errors",
    r"scan_here": "scan_in_process",
    r"one_each": "one_sample_per_part",
    r"richest": "max_value_row",
    r"dearest": "max_value_row",
    r"Shelf": "allocator",
}
# the same for names in code alone: as words of prose they are plain English
OLD_IDENTIFIERS = {
    r"Line": "SampleDecision",
    r"Members": "SampleFields",
    r"placing": "decision",
    r"spot": "placed image, or part of a file",
    r"supply": "samples",
    r"news": "take_new, or the new losses",
    r"go_on": "restore",
    r"sealed": "with_checksum",
    r"accounted": "already_reported",
    r"shelf": "allocator",
    r"ring": "slot pool",
    r"quarantine": "log",
    r"turbo": "simplejpeg",
}

VERBS = set(
    """
    accept account add adjust advance allocate allow append apply ask assemble assert assign attach attend average
    balance begin bind blank block bound break bring broadcast build cache calculate call carry cast change check
    choose clamp clean clear clip close collect combine compare compile complete compress compute concatenate
    configure confirm connect construct continue convert copy count cover create crop cut deal decide declare decode
    decompress define delete deliver derive describe detach detect determine disable discard display divide do
    download draw drop embed enable encode end ensure enter estimate evaluate exclude exit expand explain extend
    extract fail feed fetch fill filter find finish fit flatten flip flush fold follow forget format forward free
    gather generate get give go group guess hand handle hash hide hold identify ignore import include increase index
    infer initialise initialize insert inspect install interpolate invert iterate join keep label launch learn leave
    let limit list listen load locate lock log look lower make map mark mask match measure merge mirror move multiply
    name normalise normalize note number obtain open order pack pad paint parse partition pass patchify pause peek
    permute pick pin place plan plot pool pop prepare preserve prevent print process produce project propose prove
    provide publish pull push put quantise quantize query queue raise read rebuild recall receive recognise recognize
    record recover reduce refuse register reject release remove rename render repeat replace replay report request
    require resample reserve reset reshape resize resolve restart restore resume retry return reuse reverse rewind
    rotate round run sample save scale scan schedule search seed seek select send separate serialise serialize serve
    set share shift show shrink shuffle shut sign simulate skip sleep slice solve sort split spread stack standardise
    standardize start state stop store stream strip study subtract suggest sum summarise summarize survey swap
    synchronise synchronize take test tile time tokenise tokenize track train transfer transform translate transpose
    trim truncate try turn unflatten unpack unpatchify unwrap update upload use validate verify visit wait wake walk
    warm warn watch weight wrap write yield zero
    """.split()  # noqa: SIM905  a word is added in one place, without quotes
)
# verbs that are no noun, so that a class, property or module does not begin with them ("Reads …"), nor a class with their stem
ACTIONS = set(
    """
    add answer ask begin bring build carry choose collect compute convert create decide decode do draw ensure find get
    give go hand handle hear hold keep know let make paint provide raise read refuse remember remove return save send
    serve show take tell turn use wait write yield
    """.split()  # noqa: SIM905  a word is added in one place, without quotes
)
# what a noun phrase does not begin with
OPENINGS = set(
    """
    what how where which who whose why when whether that those these this it they he she as if in for of from with
    without by on to at so and or but because nobody nothing something everything anything true false none see is are
    has have was were
    """.split()  # noqa: SIM905  a word is added in one place, without quotes
)
NAMES = ("timm", "libtiff", "big_vision", "torch", "numba", "numpy", "pytest", "webdataset", "webdatasets")  # written small
