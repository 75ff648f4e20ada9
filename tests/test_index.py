from rdc_bench import index


def test_the_index_is_what_the_registries_say():
    assert index.PATH.read_text(encoding="utf-8") == index.text(index.make()), "write it anew: python -m rdc_bench.index"
